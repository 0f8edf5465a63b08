"""Nodes and the calls they describe, in the corners: open-ended calls, calls written in C, differences of configs."""

import functools
import sys
import typing
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Optional

import pytest
from places import ROOT

from bixt3d.config import build, compose, differences, from_yaml, override, read_yaml, to_yaml

HERE = {"_target_": f"{__name__}.sized"}


def sized(*, width: int = 1, **others):
    """Stand in for a callable that takes what it is given."""
    if width == 0:
        raise ZeroDivisionError("by nothing")
    return width, others


def strict(*parts, width: int = 1):
    return width


def bare():
    return 7


def typed(*, name: str = "", switch: bool = False, size: Optional[int] = None):  # noqa: UP045 - as others write it
    return name, switch, size


half = functools.partial(strict, width=2)


def test_a_call_that_takes_any_keyword_is_given_it():
    assert build({**HERE, "colour": "red"}) == (1, {"colour": "red"})
    with pytest.raises(TypeError, match=r"^box\.width: expected a whole number, got 'x'"):
        build({**HERE, "width": "x", "colour": "red"}, "box")
    with pytest.raises(ValueError, match=r"^box: unknown key 'colour' for .*strict; expected one of width"):
        build({"_target_": f"{__name__}.strict", "colour": "red"}, "box")
    with pytest.raises(ValueError, match=r"^box: unknown key 'a' for .*bare; expected one of \(none\)"):
        build({"_target_": f"{__name__}.bare", **dict.fromkeys("fbecda", 1)}, "box")


def test_what_is_given_by_place_stays_where_the_rest_is_left_to_the_code():
    assert build({"_target_": "operator.sub", "_partial_": True, "_args_": [10]})(3) == 7


def test_values_arrive_as_plain_containers():
    _, others = build({**HERE, "colours": [["red"], {"dark": True}]})
    assert [type(x) for x in (others["colours"], *others["colours"])] == [list, list, dict]


def test_what_hydra_itself_reads_is_no_keyword_of_the_call():
    assert build({"_target_": f"{__name__}.bare", "_convert_": "object", "_recursive_": True}) == 7


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", 3, "a string"),
        ("switch", 1, "true or false"),
        ("switch", "yes", "true or false"),
        ("size", 2.5, "a whole number or null"),
        ("size", True, "a whole number or null"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_is_expected(key, value, expected):
    with pytest.raises(TypeError, match=rf"^box\.{key}: expected {expected}, got {value!r}"):
        build({"_target_": f"{__name__}.typed", key: value}, "box")
    given = {"name": "x", "switch": True, "size": None}
    assert build({"_target_": f"{__name__}.typed", **given}) == ("x", True, None)


def test_an_object_that_can_be_called_is_named_by_its_class():
    assert build({"_target_": f"{__name__}.half"}) == 2
    with pytest.raises(ValueError, match=r"unknown key 'colour' for .*partial; expected one of width"):
        build({"_target_": f"{__name__}.half", "colour": "red"}, "box")


def furnished(
    *,
    stove: Callable[[int], int] | None = None,
    table: Fraction = Fraction(1),
    plates: Mapping[str, int] | None = None,
    guests: Any = None,
    rooms: typing.Sequence[int] | dict = (),
):
    return stove, table, plates, guests, rooms


@pytest.mark.parametrize("key", ["stove", "table"])
def test_keys_alone_are_refused_where_something_is_to_be_called(key):
    node = {"_target_": f"{__name__}.furnished", key: {"width": 3, "depth": 4}}
    with pytest.raises(
        TypeError, match=rf"^box\.{key}: expected a node with _target_, .*width, depth; .* ~box\.{key}\.$"
    ):
        build(node, "box")
    made = {**node, key: {"_target_": "fractions.Fraction", "numerator": 3}}
    assert Fraction(3) in build(made, "box")
    for plain in ("plates", "guests", "rooms"):
        assert {"a": 1} in build({"_target_": f"{__name__}.furnished", plain: {"a": 1}}, "box")
    assert build({"_target_": f"{__name__}.furnished", "stove": None}, "box")[0] is None


def test_a_call_written_in_c_is_taken_as_it_is():
    assert build({"_target_": "builtins.dict", "a": 1}) == {"a": 1}


def test_what_the_code_adds_to_a_node_is_checked_as_well():
    with pytest.raises(TypeError, match=r"^box\.width: expected a whole number, got 2\.5"):
        build(HERE, "box", width=2.5)


def test_an_error_that_is_no_mistake_of_the_user_names_the_node_too():
    with pytest.raises(ValueError, match=r"^box: (?s:.*)by nothing"):
        build({**HERE, "width": 0}, "box")


def test_a_file_of_the_current_folder_does_not_hide_what_is_installed(tmp_path, monkeypatch):
    (tmp_path / "colorsys.py").write_text("def rgb_to_hsv(r, g, b): return 'mine'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert build({"_target_": "colorsys.rgb_to_hsv", "r": 0, "g": 0, "b": 1}) == pytest.approx((2 / 3, 1, 1))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)


def test_overrides_take_texts_lists_and_parts_of_a_node():
    config = {"data": {"root": "a", "n": 1}, "train": {"targets": [1, 2, 3]}, "copy": "x"}
    assert override(config, ["data.root=key=value"])["data"]["root"] == "key=value"
    assert override(config, ["train.targets=[4]"])["train"]["targets"] == [4]
    assert override(config, ["data={n: 5}"])["data"] == {"root": "a", "n": 5}
    assert override(config, ["data.n=null"])["data"]["n"] is None
    with pytest.raises(ValueError, match=r"data\.x: unknown key; expected one of \(none\)"):
        override({"data": {}}, ["data.x=1"])
    with pytest.raises(ValueError, match=r"argument data\.n=\?\?\?|data\.n: has no value yet"):
        override(config, ["data.n=???"])


def test_differences_are_dotted_in_order_and_complete():
    before = {"b": {"x": 1, "gone": 2}, "a": [1, 2], "c": {"z": 0}}
    now = {"b": {"x": 3, "new": 4}, "a": [1, 2], "c": {"z": 9}}
    assert differences(before, now) == [
        ("b.gone", 2, None),
        ("b.new", None, 4),
        ("b.x", 1, 3),
        ("c.z", 0, 9),
    ]
    assert differences(before, now, besides=["b.gone", "b.new", "c.z"]) == [("b.x", 1, 3)]
    assert differences(before, before) == []
    assert differences({"a": {}}, {"a": {"b": 1}}) == [("a", {}, None), ("a.b", None, 1)]


def test_a_saved_config_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"^saved config: "):
        from_yaml("a: [1")
    assert from_yaml(to_yaml({"name": "café", "a": {"b": None}})) == {"name": "café", "a": {"b": None}}


def test_a_yaml_file_is_read_as_it_is(tmp_path):
    (tmp_path / "a.yaml").write_text("café: [1, {b: '${c}'}]\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"café": [1, {"b": "${c}"}]}
    (tmp_path / "a.yaml").write_bytes(b"caf\xe9: 1\n")
    with pytest.raises(ValueError, match=r"a\.yaml: "):
        read_yaml(tmp_path / "a.yaml")


def test_a_config_is_composed_as_the_command_line_does():
    config = compose(
        ROOT / "tests" / "tiny.yaml", ["train.epochs=7", "data.seed=3"], config_root=ROOT / "cfgs"
    )
    assert (config["name"], config["train"]["epochs"], config["data"]["seed"]) == ("tiny", 7, 3)
    with pytest.raises(ValueError, match=r"^train\.epocs: unknown key; expected one of "):
        compose(ROOT / "tests" / "tiny.yaml", ["train.epocs=7"], config_root=ROOT / "cfgs")


def test_a_key_that_an_entry_of_a_list_does_not_write_is_added_with_a_plus(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: [{_target_: bixt3d.datasets.transforms.RandomScale, high: 2}]\n")
    said = r"^steps\.0\.low: .*RandomScale takes it; add it with a plus: \+steps\.0\.low=0\.9$"
    with pytest.raises(ValueError, match=said):
        compose(tmp_path / "a.yaml", ["steps.0.low=0.9"], config_root=ROOT / "cfgs")
