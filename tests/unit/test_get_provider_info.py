# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import importlib
import json
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.providers_manager import ProvidersManager
from wtforms import IntegerField, StringField

import airflow_provider_luma
from airflow_provider_luma import connection_fields
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.get_provider_info import get_provider_info
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.version_compat import AIRFLOW_V_3_2_PLUS

KINDS_WITH_MODULES = ("hooks", "operators", "sensors", "triggers")


def schema() -> dict[str, Any]:
    text = (Path(airflow.__file__).parent / "provider_info.schema.json").read_text()
    document: dict[str, Any] = json.loads(text)
    return document


def connection_type() -> dict[str, Any]:
    entry: dict[str, Any]
    (entry,) = get_provider_info()["connection-types"]
    return entry


def declared_modules(kind: str) -> list[str]:
    return [module for group in get_provider_info().get(kind, []) for module in group["python-modules"]]


class TestShape:
    def test_it_follows_airflows_schema(self) -> None:
        jsonschema.validate(get_provider_info(), schema())

    @pytest.mark.parametrize(
        ("section", "wrong"),
        [
            ("name", None),
            ("hooks", "airflow_provider_luma.hooks.luma"),
            ("triggers", [{"python-modules": ["airflow_provider_luma.triggers.luma"]}]),
            ("connection-types", [{"connection-type": "luma"}]),
        ],
    )
    def test_the_schema_refuses_a_wrong_answer(self, section: str, wrong: Any) -> None:
        info = copy.deepcopy(get_provider_info()) | {section: wrong}

        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(info, schema())

    def test_it_holds_no_section_that_airflow_does_not_know(self) -> None:
        # Airflow 3.1 passes over the commands, which came with 3.2.
        known = set(schema()["properties"]) | (set() if AIRFLOW_V_3_2_PLUS else {"cli"})

        assert set(get_provider_info()) <= known

    def test_every_module_belongs_to_a_declared_integration(self) -> None:
        integrations = {entry["integration-name"] for entry in get_provider_info()["integrations"]}

        for kind in KINDS_WITH_MODULES:
            assert {group["integration-name"] for group in get_provider_info()[kind]} <= integrations

    def test_each_answer_is_its_own(self) -> None:
        get_provider_info()["connection-types"][0]["ui-field-behaviour"]["relabeling"].clear()

        assert connection_type()["ui-field-behaviour"]["relabeling"] == {
            "host": "Base URL",
            "password": "API key",
        }


class TestNames:
    @pytest.mark.parametrize("kind", KINDS_WITH_MODULES)
    def test_it_names_exactly_the_modules_there_are(self, kind: str) -> None:
        package = importlib.import_module(f"airflow_provider_luma.{kind}")
        modules = [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]

        assert sorted(declared_modules(kind)) == modules

    @pytest.mark.parametrize("kind", KINDS_WITH_MODULES)
    def test_every_named_module_can_be_imported(self, kind: str) -> None:
        for module in declared_modules(kind):
            importlib.import_module(module)

    def test_it_leaves_out_no_kind_of_module_that_there_is(self) -> None:
        folders = {module.name for module in pkgutil.iter_modules(airflow_provider_luma.__path__)}

        assert folders & set(schema()["properties"]) <= set(get_provider_info())

    def test_the_hook_is_the_one_of_the_connection_type(self) -> None:
        entry = connection_type()
        module, _, name = entry["hook-class-name"].rpartition(".")

        assert getattr(importlib.import_module(module), name) is LumaHook
        assert (entry["connection-type"], entry["hook-name"]) == (LumaHook.conn_type, LumaHook.hook_name)

    def test_the_entry_point_leads_here(self) -> None:
        (entry_point,) = entry_points(group="apache_airflow_provider", name="provider_info").select(
            value="airflow_provider_luma.get_provider_info:get_provider_info"
        )

        assert entry_point.load() is get_provider_info
        assert entry_point.dist is not None
        assert entry_point.dist.name == get_provider_info()["package-name"]


class TestProvidersManager:
    def test_airflow_lists_the_provider_with_its_version(self) -> None:
        provider = ProvidersManager().providers["airflow-provider-luma"]

        assert provider.version == airflow_provider_luma.__version__
        assert provider.data | get_provider_info() == provider.data

    @pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
    def test_airflow_finds_a_hook_whose_connection_can_be_tested(self) -> None:
        hook = ProvidersManager().hooks["luma"]

        assert hook is not None
        assert hook.hook_class_name == "airflow_provider_luma.hooks.luma.LumaHook"
        assert hook.connection_id_attribute_name == "luma_conn_id"
        assert hook.hook_name == LumaHook.hook_name
        assert hook.connection_testable

    def test_airflow_shows_every_field_of_the_connection_form(self) -> None:
        (form,) = [form for form in connection_forms() if form.connection_type == "luma"]

        assert form.standard_fields.host.title == "Base URL"
        assert form.standard_fields.host.placeholder == "https://xuedingmao.online"
        assert form.standard_fields.password.title == "API key"
        assert form.standard_fields.login.hidden
        assert form.standard_fields.port.hidden
        assert form.standard_fields.url_schema.hidden
        assert list(form.extra_fields) == [
            "batch_size",
            "connect_timeout",
            "read_timeout",
            "verify",
            "proxies",
            "max_poll_failures",
            "allowed_artifact_hosts",
        ]
        number = "number" if AIRFLOW_V_3_2_PLUS else "string"
        assert {name: field["schema"]["type"] for name, field in form.extra_fields.items()} == {
            "batch_size": ["integer", "null"],
            "connect_timeout": [number, "null"],
            "read_timeout": [number, "null"],
            "verify": ["string", "null"],
            "proxies": ["string", "null"],
            "max_poll_failures": ["integer", "null"],
            "allowed_artifact_hosts": ["string", "null"],
        }
        for field in connection_fields.EXTRA_FIELDS:
            shown = form.extra_fields[field.name]
            assert shown["schema"]["title"] == field.label
            assert shown["description"] == field.description
            assert str(shown["value"]) == str(field.default)


class TestConnectionFields:
    def test_every_default_is_valid_by_its_own_schema(self) -> None:
        for field in connection_type()["conn-fields"].values():
            jsonschema.Draft202012Validator.check_schema(field["schema"])
            jsonschema.validate(field["schema"].get("default"), field["schema"])

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [("batch_size", 0), ("batch_size", 1.5), ("connect_timeout", 0), ("read_timeout", -1)],
    )
    def test_a_value_out_of_range_is_refused(self, field: str, wrong: float) -> None:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, connection_type()["conn-fields"][field]["schema"])

    def test_the_form_has_a_field_for_every_setting_of_a_relay(self) -> None:
        assert {field.name for field in connection_fields.EXTRA_FIELDS} == {
            *RelaySettings.__struct_fields__
        } - {"base_url", "api_key"}

    @pytest.mark.parametrize("as_kept", [lambda default: default, str], ids=["typed", "as_text"])
    def test_the_forms_defaults_say_the_same_as_an_empty_extra(self, as_kept: Callable[[Any], Any]) -> None:
        defaults = {
            field.name: as_kept(field.default)
            for field in connection_fields.EXTRA_FIELDS
            if field.default is not None
        }

        assert relay_settings(json.dumps(defaults)) == relay_settings(None)

    def test_the_forms_placeholder_is_the_default_host(self) -> None:
        assert (
            connection_type()["ui-field-behaviour"]["placeholders"]["host"] == relay_settings(None).base_url
        )

    def test_every_field_explains_itself(self) -> None:
        for field in connection_fields.EXTRA_FIELDS:
            assert field.label
            assert field.description.endswith(".")

    def test_the_hooks_form_for_older_airflow_is_the_same(self) -> None:
        widgets = LumaHook.get_connection_form_widgets()
        declared = connection_type()["conn-fields"]

        assert list(widgets) == list(declared)
        for name, widget in widgets.items():
            assert widget.kwargs["label"] == declared[name]["label"]
            assert widget.kwargs["description"] == declared[name]["description"]
            assert str(widget.kwargs["default"]) == str(declared[name]["schema"].get("default"))
        assert {name: widget.field_class for name, widget in widgets.items()} == {
            "batch_size": IntegerField,
            "connect_timeout": StringField,
            "read_timeout": StringField,
            "verify": StringField,
            "proxies": StringField,
            "max_poll_failures": IntegerField,
            "allowed_artifact_hosts": StringField,
        }

    def test_the_hooks_layout_for_older_airflow_is_the_same(self) -> None:
        layout = connection_type()["ui-field-behaviour"]

        assert LumaHook.get_ui_field_behaviour() == {
            "hidden_fields": layout["hidden-fields"],
            "relabeling": layout["relabeling"],
            "placeholders": layout["placeholders"],
        }


def relay_settings(extra: str | None) -> RelaySettings:
    return RelaySettings.from_fields(host=None, password="sk-test", extra=extra)


def connection_forms() -> list[Any]:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    if not AIRFLOW_V_3_2_PLUS:
        # Airflow 3.1.3 and newer 3.1 show only fields of hooks that were first asked for their forms here.
        ProvidersManager()._cleanup()
        ProvidersManager()._init_airflow_core_hooks()
    return HookMetaService.hook_meta_data()
