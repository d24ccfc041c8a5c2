"""The table of verbs: fast help, exit codes, settings told from paths."""

import subprocess
import sys
import types

import pytest

from lamella import cli
from lamella.errors import SlideError


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in cli.VERBS)], ids=" ".join)
def test_help_never_imports_torch_and_shows_an_example(arguments, capsys):
    verb = arguments[0]
    if verb == "--help":
        assert cli.main(arguments) == 0
        expected = "verbs:"
    else:
        with pytest.raises(SystemExit, match="0"):  # argparse leaves this way
            cli.main(arguments)
        expected = f"example:\n  {cli.VERBS[verb].example}"
    assert expected in capsys.readouterr().out


def test_help_in_a_fresh_process_loads_nothing_heavy():
    code = (
        "import sys\nfrom lamella.cli import main\n"
        "for a in (['--help'], ['pretrain', '--help']):\n"
        "    try: main(a)\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'tifffile', 'openslide', 'pyarrow', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def verb(monkeypatch):
    """A stand-in verb module for `index`; tests put their own `run` into it."""
    module = types.ModuleType("lamella.verbs.index")
    monkeypatch.setitem(sys.modules, "lamella.verbs.index", module)
    return module


def test_settings_are_told_from_paths_and_flags_may_stand_anywhere(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "a=b.tif"
    odd.touch()
    seen = []
    verb.run = lambda request: seen.append(request) or 0
    assert cli.main(["index", "slides/", "-o", "out", "tissue.mpp=4", "a=b.tif", "--mpp", "0.5"]) == 0
    (request,) = seen
    assert [str(path) for path in request.paths] == ["slides", "a=b.tif"]
    assert request.overrides == ("tissue.mpp=4",)
    assert str(request.out) == "out"
    assert request.options == {"mpp": 0.5, "shard": None, "retry_failed": False}


def test_a_user_error_is_two_plain_lines_at_most_and_exit_code_2(verb, capsys):
    def fail(request):
        raise SlideError("a.tif", "it is empty", "Copy it again.")

    verb.run = fail
    assert cli.main(["index", "a.tif"]) == 2
    shown = capsys.readouterr().err
    assert shown == "lamella index: a.tif: it is empty. Copy it again.\n"
    assert cli.main(["index", "a.tif", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_a_plain_line_and_exit_code_2(verb, capsys):
    def interrupt(request):
        raise KeyboardInterrupt

    verb.run = interrupt
    assert cli.main(["index", "a.tif"]) == 2
    assert "interrupted by Ctrl-C" in capsys.readouterr().err


def test_a_programming_error_keeps_its_traceback(verb):
    def fail(request):
        raise ZeroDivisionError

    verb.run = fail
    with pytest.raises(ZeroDivisionError):
        cli.main(["index", "a.tif"])


def test_an_unknown_verb_gets_the_nearest(capsys):
    assert cli.main(["pretrian"]) == 2
    assert "Did you mean `lamella pretrain`?" in capsys.readouterr().err


def test_every_verb_has_its_module_and_config_prints_its_schema(capsys):
    for name in set(cli.VERBS) - {"config"}:
        assert cli.main(["config", name]) == 0, name
        shown = capsys.readouterr().out
        assert " = " in shown or "no settings" in shown
