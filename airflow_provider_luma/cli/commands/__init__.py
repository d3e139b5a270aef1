# SPDX-License-Identifier: Apache-2.0
"""One module per command, imported when it runs; ``run(arguments, output)`` returns the exit code."""
