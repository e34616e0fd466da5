"""A YAML file is read as YAML reads it, except that a key must not stand twice."""

import pytest
import yaml

from harness.plan.reading import read_yaml
from harness.plan.validation import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: config key 'a' stands in line 1 already"),
        (
            "recipes:\n  quick:\n    epochs: 1\n    epochs: 1\n",
            "line 4: config key 'recipes.quick.epochs' stands in line 3",
        ),
        ("a: [{b: 1, b: 2}]\n", "line 1: config key 'a.0.b' stands in line 1"),
        ("a: &x {b: 1, b: 2}\nc: *x\n", "config key 'a.b'"),
        ("a: 1\n'a': 2\n", "line 2: config key 'a'"),
        ("a: [\n", "cannot be read: while parsing"),
        ("a: {b\n", "cannot be read"),
    ],
)
def test_what_yaml_would_swallow_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\n1: 2\n'1': 3\n",
        "base: &base {a: 1, b: {c: 2}}\nmore: {<<: *base, a: 2, b: {c: 3}}\n",
        "outer: {inner: &x {<<: &p {k: 1}, k: 2}}\nother: {<<: *x, k: 3}\n",
        "one: &one {a: 1}\ntwo: &two {b: 1}\nboth: {<<: [*one, *two], a: 2}\n",
        "self: &self [*self]\n",
    ],
)
def test_merged_keys_and_aliases_are_no_repetition(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert repr(read_yaml(path)) == repr(yaml.safe_load(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        read_yaml(tmp_path / "nowhere.yaml")
