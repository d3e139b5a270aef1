#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the small videos that the sandbox serves. Needs ffmpeg with libx264 (Debian: apt-get install ffmpeg).
# Usage: tools/make_sandbox_media.sh [target directory]
set -euo pipefail

target=${1:-$(dirname "$0")/../airflow_provider_luma/sandbox/media}
mkdir -p "$target"

# Three videos that differ at a glance: 640×352, 24 frames a second, 3 seconds, no sound.
sources=(
  "testsrc2=size=640x352:rate=24:duration=3"
  "gradients=size=640x352:rate=24:duration=3:c0=0x1b2a6b:c1=0xf2a65a:nb_colors=2:speed=0.03:seed=7"
  "mandelbrot=size=640x352:rate=24:maxiter=300:end_scale=0.05:start_scale=2,trim=duration=3"
)

for number in "${!sources[@]}"; do
  name="$target/sample_$((number + 1))"
  ffmpeg -hide_banner -loglevel error -y -f lavfi -i "${sources[number]}" \
    -c:v libx264 -profile:v main -preset veryslow -crf 42 -pix_fmt yuv420p -g 24 \
    -movflags +faststart -fflags +bitexact -flags:v +bitexact -map_metadata -1 -an "$name.mp4"
  ffmpeg -hide_banner -loglevel error -y -i "$name.mp4" \
    -frames:v 1 -q:v 8 -bitexact -update 1 "${name}_thumbnail.jpg"
  ffmpeg -hide_banner -loglevel error -y -sseof -0.2 -i "$name.mp4" \
    -q:v 8 -bitexact -update 1 "${name}_last_frame.jpg"
done
ls -l "$target"
