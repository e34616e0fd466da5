"""A method's hash follows its code: not its comments, and not what every cell runs anyway."""

from harness.plan import code


def test_code_hash_ignores_comments_and_sees_code(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "HARNESS", tmp_path / "harness")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "__init__.py").write_text("")
    part, fit = tmp_path / "library" / "part.py", tmp_path / "fit.py"
    part.write_text("VALUE = 1\n")
    fit.write_text('"""Doc."""\nfrom library.part import VALUE\n\ndef fit():\n    """What."""\n    return VALUE\n')
    first = code.code_hash(fit)
    fit.write_text("from library.part import VALUE\n# why\ndef fit():\n  return (VALUE)\n")
    assert code.code_hash(fit) == first
    part.write_text("VALUE = 2\n")
    assert code.code_hash(fit) != first


def test_modules_of_the_harness_count_unless_every_cell_runs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "HARNESS", tmp_path / "harness")
    monkeypatch.setattr(code, "TRAINER", tmp_path / "harness" / "cell.py")
    (tmp_path / "harness").mkdir()
    for name, text in {"cell": "import harness.shared", "shared": "A = 1", "special": "B = 1"}.items():
        (tmp_path / "harness" / f"{name}.py").write_text(text)
    fit = tmp_path / "fit.py"
    fit.write_text("import harness.shared\nimport harness.special\n")
    first = code.code_hash(fit)
    (tmp_path / "harness" / "shared.py").write_text("A = 22")
    assert code.code_hash(fit) == first
    (tmp_path / "harness" / "special.py").write_text("B = 22")
    assert code.code_hash(fit) != first


def test_every_file_of_a_method_that_is_a_package_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    (tmp_path / "mine").mkdir()
    fit, table = tmp_path / "mine" / "fit.py", tmp_path / "mine" / "table.bin"
    fit.write_text("def fit():\n    return 1\n")
    first = code.code_hash(fit)
    table.write_bytes(b"\xff\x00")
    second = code.code_hash(fit)
    table.write_bytes(b"\xff\x01")
    assert len({first, second, code.code_hash(fit)}) == 3


def test_a_rule_is_what_its_file_says_besides_comments_and_blank_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    rule = tmp_path / "l1.smk"
    rule.write_text('"""L1."""\n\n\nuse rule cell as l1 with:\n    input:\n        init=DENSE,\n')
    first = code.code_hash(rule)
    rule.write_text(
        '"""Another sentence."""\n# why\nuse rule cell as l1 with:\n    input:\n        init=DENSE,  # here\n'
    )
    assert code.code_hash(rule) == first
    rule.write_text('"""L1."""\n\n\nuse rule cell as l1 with:\n    input:\n        start=DENSE,\n')
    assert code.code_hash(rule) != first


def test_a_program_in_another_language_is_hashed_as_it_is(tmp_path):
    program = tmp_path / "fit.sh"
    program.write_bytes(b"#!/bin/sh\n\xff")
    first = code.code_hash(program)
    program.write_bytes(b"#!/bin/sh\n\xff # comment")
    assert code.code_hash(program) != first


def test_a_module_that_appears_later_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    fit = tmp_path / "fit.py"
    fit.write_text("import part\n")
    first = code.code_hash(fit)
    (tmp_path / "part.py").write_text("VALUE = 1\n")
    assert code.code_hash(fit) != first
