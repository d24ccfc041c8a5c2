"""Settings in four layers: schema defaults < `-p profile.yaml` < `-r run.yaml` < `key=value`; later wins.

Every layer is one tree with the same key paths. A block that carries a `name` is a variant: changing its name replaces
the whole block, so that no setting of the old variant lingers. All errors are found at once, each with the layer it
came from and the key that was probably meant.
"""

from __future__ import annotations

import copy
import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lamella.errors import ConfigError, LamellaError

DEFAULT_ORIGIN = "default"


class Settings(BaseModel):
    """Base of every settings block: frozen, unknown keys refused, defaults checked, descriptions in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class Resolved(Generic[SettingsT]):
    """A validated tree and where each of its leaves came from."""

    config: SettingsT
    origins: dict[str, str]

    def tree(self) -> dict[str, Any]:
        """The settings as plain values, as written to config.yaml."""
        return self.config.model_dump(mode="json")

    def text(self) -> str:
        """The settings as YAML, for a dry run."""
        return yaml.safe_dump(self.tree(), sort_keys=False).rstrip()


@dataclass(frozen=True)
class Request:
    """What the user asked of a verb on the command line, before it is checked."""

    verb: str
    paths: tuple[Path, ...] = ()
    out: Path | None = None
    profile: str | None = None
    run: Path | None = None
    overrides: tuple[str, ...] = ()
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """The verb's own flags, such as `mpp` of `lamella index --mpp`."""

    def resolve(self, schema: type[SettingsT]) -> Resolved[SettingsT]:
        """Merge and check the four layers against the verb's schema."""
        return resolve(schema, self.profile, self.run, self.overrides, verb=self.verb)

    def chosen(self, key: str) -> Any:
        """What the layers give for a dotted key, unchecked; None where none gives it. A verb picks its schema by it.

        Raises:
            ConfigError: A profile or run file cannot be found or read.
        """
        problems: list[str] = []
        value = None
        for layer in _layers(self.profile, self.run, self.overrides, problems):
            found: Any = layer.tree
            for part in key.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            value = value if found is None else found
        if problems:
            raise ConfigError(problems, self.verb)
        return value

    def folder(self) -> Path:
        """The folder to write to.

        Raises:
            LamellaError: No -o was given.
        """
        if self.out is None:
            verb = f"lamella {self.verb}"
            raise LamellaError(verb, "no output folder is given", f"Add -o FOLDER; `{verb} --help` shows an example.")
        return self.out


def resolve(
    schema: type[SettingsT],
    profile: str | Path | None = None,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    verb: str | None = None,
) -> Resolved[SettingsT]:
    """Merge the layers and validate them.

    Args:
        schema: The verb's settings.
        profile: A YAML file, or the name of a profile that ships with Lamella.
        run: A YAML file, for example the config.yaml of an earlier run.
        overrides: `dotted.key=value` texts; values are read as YAML, so `1e-4` is a number.
        verb: Named in the error's remedy.

    Raises:
        ConfigError: All problems of all layers.
    """
    problems: list[str] = []
    layers = _layers(profile, run, overrides, problems)
    tree = _default_tree(schema)
    origins = dict.fromkeys(_leaves(tree), DEFAULT_ORIGIN)
    for layer in layers:
        _merge(tree, layer.tree, (), layer.origins, origins)
    try:
        config = schema.model_validate(tree)
    except ValidationError as error:
        problems.extend(_lines(error, schema, origins))
        config = None
    if problems or config is None:
        raise ConfigError(problems, verb)
    leaves = _leaves(config.model_dump(mode="json"))
    return Resolved(config, {path: origins.get(path, DEFAULT_ORIGIN) for path in leaves})


def profile_path(profile: str | Path) -> Path:
    """The file of a profile: a path that exists, or the name of one that ships with Lamella.

    Raises:
        ConfigError: There is no such file or profile; the nearest names are proposed.
    """
    path = Path(profile)
    if path.exists():
        return path
    shipped = shipped_profiles()
    if str(profile) in shipped:
        return shipped[str(profile)]
    near = difflib.get_close_matches(str(profile), shipped, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped profiles: {', '.join(sorted(shipped))}"
    raise ConfigError([f"profile {profile}: no such file or profile; {hint}"])


def shipped_profiles() -> dict[str, Path]:
    """Name -> file of the profiles that ship with Lamella."""
    folder = Path(str(resources.files("lamella") / "profiles"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def describe(schema: type[Settings]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (key path, type, default, description) of every leaf, variants under `key[name=...]`."""
    yield from _describe(schema, "")


# ---- layers ---------------------------------------------------------------------------------------------------------


@dataclass
class _Layer:
    tree: dict[str, Any]
    origins: dict[str, str]


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.2 numbers (`1e-4` is one) and no repeated keys."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _layers(
    profile: str | Path | None, run: str | Path | None, overrides: Sequence[str], problems: list[str]
) -> list[_Layer]:
    """The layers above the defaults, weakest first."""
    layers = [] if profile is None else [_file_layer(profile_path(profile), problems)]
    if run is not None:
        layers.append(_file_layer(Path(run), problems))
    return [*layers, *_override_layers(overrides, problems)]


def _file_layer(path: Path, problems: list[str]) -> _Layer:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
        return _Layer({}, {})
    origins: dict[str, str] = {}
    try:
        node = yaml.compose(text, Loader=_YamlLoader)
        if node is None:
            return _Layer({}, {})
        if not isinstance(node, yaml.MappingNode):
            problems.append(f"{path}: must hold keys and values, not a single value or list")
            return _Layer({}, {})
        _record_lines(node, (), str(path), origins, problems)
        return _Layer(yaml.load(text, Loader=_YamlLoader), origins)
    except yaml.YAMLError as error:
        problems.append(f"{path}: is not YAML ({' '.join(str(error).split())})")
        return _Layer({}, {})


def _record_lines(
    node: yaml.MappingNode, prefix: tuple[str, ...], file: str, origins: dict[str, str], problems: list[str]
) -> None:
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        path = (*prefix, key)
        if key in seen:
            problems.append(f"{'.'.join(path)}: stands twice ({file}:{line}); keep one")
        seen.add(key)
        origins[".".join(path)] = f"{file}:{line}"
        if isinstance(value_node, yaml.MappingNode):
            _record_lines(value_node, path, file, origins, problems)


def _override_layers(overrides: Sequence[str], problems: list[str]) -> Iterator[_Layer]:
    # Variant names first: `method.name=x` clears the block that `method.k=v` then fills, whatever their order.
    for text in sorted(overrides, key=lambda text: not text.partition("=")[0].endswith(".name")):
        key, sign, value = text.partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
            problems.append(f"{text}: not a setting; write key=value, such as optim.lr=1e-4")
            continue
        try:
            parsed = yaml.load(value, Loader=_YamlLoader) if value else None
        except yaml.YAMLError:
            problems.append(f"{key}: {value!r} is not a YAML value (command line)")
            continue
        tree: Any = parsed
        for part in reversed(key.split(".")):
            tree = {part: tree}
        yield _Layer(tree, {key: "command line"})


def _merge(
    base: dict[str, Any],
    layer: Mapping[str, Any],
    prefix: tuple[str, ...],
    layer_origins: Mapping[str, str],
    origins: dict[str, str],
) -> None:
    for key, value in layer.items():
        path = (*prefix, str(key))
        dotted = ".".join(path)
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, dict):
            if "name" in value and value["name"] != old.get("name"):
                base[key] = {}  # another variant: nothing of the old one stays
                for stale in [known for known in origins if known.startswith(dotted + ".")]:
                    del origins[stale]
            _merge(base[key], value, path, layer_origins, origins)
            continue
        base[key] = copy.deepcopy(dict(value)) if isinstance(value, Mapping) else value
        for leaf in _leaves(value, path) if isinstance(value, Mapping) else [dotted]:
            origins[leaf] = _origin(leaf, layer_origins)


def _origin(dotted: str, origins: Mapping[str, str]) -> str:
    """The origin of a key, or of the nearest block above it."""
    while dotted:
        if dotted in origins:
            return origins[dotted]
        dotted = dotted.rpartition(".")[0]
    return DEFAULT_ORIGIN


def _leaves(tree: Any, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*prefix, str(key)))
    else:
        yield ".".join(prefix)


def _default_tree(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema's defaults as plain values; required keys are absent."""
    tree: dict[str, Any] = {}
    for name, info in schema.model_fields.items():
        default = info.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel):
            tree[name] = default.model_dump()
        elif default is not PydanticUndefined:
            tree[name] = default
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            tree[name] = _default_tree(info.annotation)
    return tree


# ---- errors ---------------------------------------------------------------------------------------------------------


def _lines(error: ValidationError, schema: type[BaseModel], origins: Mapping[str, str]) -> Iterator[str]:
    """One plain line per problem.

    `{"type": "extra_forbidden", "loc": ("optim", "lrr")}` becomes
    `optim.lrr: unknown key; did you mean optim.lr? (run.yaml:3)`.
    """
    described = [path for path, *_ in _describe(schema, "")]
    for problem in error.errors():
        path = _path(problem["loc"], schema)
        if problem["type"] == "union_tag_invalid":
            path += ".name"
        origin = _origin(path, origins)
        where = "" if origin == DEFAULT_ORIGIN else f" ({origin})"
        if problem["type"] == "extra_forbidden":
            yield f"{path}: unknown key{_suggestion(path, described)}{where}"
        elif problem["type"] == "missing":
            yield f"{path}: must be given{where}"
        elif problem["type"] == "union_tag_invalid":
            context = problem["ctx"]
            near = difflib.get_close_matches(str(context["tag"]), re.findall(r"'([^']+)'", context["expected_tags"]), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{path}: {context['tag']!r} is not one of {context['expected_tags']}{hint}{where}"
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            given = "" if isinstance(problem["input"], Mapping) else f", not {problem['input']!r}"
            yield f"{path or 'settings'}: {message}{given}{where}"


def _path(location: tuple[int | str, ...], schema: type[BaseModel]) -> str:
    """The dotted key of a pydantic location, without the variant tags that pydantic puts between the keys."""
    parts: list[str] = []
    models: list[type[BaseModel]] = [schema]
    for part in location:
        if models and isinstance(part, str) and not any(part in model.model_fields for model in models):
            tagged = [model for model in models if _variant_name(model) == part]
            if tagged:
                models = tagged
                continue
        parts.append(str(part))
        fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
        models = [model for info in fields for model in _models(info.annotation)]
    return ".".join(parts)


def _suggestion(path: str, described: Sequence[str]) -> str:
    keys = {re.sub(r"\[name=[^\]]*\]", "", key): key for key in described}
    if path in keys:  # a key of the variant that was not chosen
        variant = re.search(r"([\w.]+)\[name=([^\]]*)\]", keys[path])
        return f"; it belongs to {variant[1]}.name={variant[2]}" if variant else ""
    near = difflib.get_close_matches(path, keys, n=1, cutoff=0.75)
    leaves = {key.rpartition(".")[2]: key for key in keys}
    if not near:  # the right word, or nearly, in the wrong block
        near = [leaves[word] for word in difflib.get_close_matches(path.rpartition(".")[2], leaves, n=1)]
    return f"; did you mean {near[0]}?" if near else ""


# ---- the schema, walked ---------------------------------------------------------------------------------------------


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings blocks among an annotation's members: one for a block, several for a variant, none for a leaf."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for member in typing.get_args(annotation) for model in _models(member)]
    return []


def _variant_name(model: type[BaseModel]) -> str | None:
    info = model.model_fields.get("name")
    literals = typing.get_args(info.annotation) if info and typing.get_origin(info.annotation) is typing.Literal else ()
    return literals[0] if literals else None


def _describe(
    schema: type[BaseModel], prefix: str, default: BaseModel | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """Leaves with their defaults: those of the `default` block where one is given, else the fields' own."""
    for name, info in schema.model_fields.items():
        models = _models(info.annotation)
        path = f"{prefix}{name}"
        own = getattr(default, name) if default is not None else _default(info)
        for model in models:
            tag = f"[name={_variant_name(model)}]" if len(models) > 1 else ""
            yield from _describe(model, f"{path}{tag}.", own if type(own) is model else None)
        if not models:
            yield path, _type_text(info.annotation), _default_text(own), " ".join((info.description or "").split())


def _type_text(annotation: Any) -> str:
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return _type_text(members[0])
    if origin is typing.Literal:
        return " | ".join(str(member) for member in members)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_text(member) for member in members)
    if origin in (list, tuple):
        return f"list of {_type_text(members[0])}" if members else "list"
    if origin is dict:
        return f"map of {_type_text(members[0])} to {_type_text(members[1])}"
    return getattr(annotation, "__name__", str(annotation)).replace("PosixPath", "Path")


def _default(info: FieldInfo) -> Any:
    return info.get_default(call_default_factory=True, validated_data={})


def _default_text(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    return "null" if default is None else str(_plain(default))


def _plain(value: Any) -> Any:
    """Blocks and tuples as they would be written in YAML."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
