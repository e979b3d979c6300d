"""What the module has, and that its types file says the same."""

import ast
import inspect
from importlib import metadata
from pathlib import Path

import pytest
import sdft_py

STUB = Path(__file__).parent.parent / "sdft_py.pyi"


def stub_functions():
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_function_is_typed_and_documented():
    functions = {
        name: value
        for name, value in vars(sdft_py).items()
        if inspect.isbuiltin(value) and not name.startswith("_")
    }
    assert set(functions) == set(stub_functions())
    for name, function in functions.items():
        for part in ("Parameters\n", "Returns\n", "Raises\n"):
            assert part in inspect.getdoc(function), (name, part)


def test_arguments_and_defaults_are_those_of_the_types_file():
    for name, node in stub_functions().items():
        expected = node.args
        found = inspect.signature(getattr(sdft_py, name)).parameters.values()
        positional = [p for p in found if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        keywords = [p for p in found if p.kind is inspect.Parameter.KEYWORD_ONLY]
        assert [p.name for p in positional] == [a.arg for a in expected.args], name
        assert [p.name for p in keywords] == [a.arg for a in expected.kwonlyargs], name
        defaults = [ast.literal_eval(value) for value in expected.kw_defaults]
        assert [p.default for p in keywords] == defaults, name
        last = [p.default for p in positional if p.default is not inspect.Parameter.empty]
        assert last == [ast.literal_eval(value) for value in expected.defaults], name


try:
    INSTALLED = metadata.version("sdft-py")
except metadata.PackageNotFoundError:
    INSTALLED = None


@pytest.mark.skipif(INSTALLED is None, reason="the module was not installed as a package")
def test_the_package_has_its_types_and_version():
    assert sdft_py.__version__ == INSTALLED
    folder = Path(sdft_py.__file__).parent
    assert (folder / "py.typed").is_file()
    assert (folder / "__init__.pyi").read_bytes() == STUB.read_bytes()
