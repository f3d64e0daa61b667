"""Write the generated parts of the pages: `python docs/make.py`. A test holds that they are up to date.

A generated part of a page stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; `PARTS` has the names. Only
docs/*.md is read. What a table says is written where the thing itself is declared: change it there.
"""

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.api.a1111.schemas import A1111Img2ImgBody, A1111Txt2ImgBody
from serve_app.api.api_paths import api_of
from serve_app.api.app import ROUTE_MODULES
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.native.schemas import GenerateBody
from serve_app.api.openai.schemas import EditsBody, GenerationsBody, OpenAIBody
from serve_app.config import AppConfig, IngressConfig, ModelConfig, PresetConfig, SafetyConfig
from serve_app.errors import ConfigError, DarkroomError
from serve_app.requests.params import GenerationParams, HiresParams, Infotext, LoraWeight, SamplingParams
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

ROOT = Path(__file__).parents[1]
PART = re.compile(r"(<!-- begin (?P<name>[\w-]+) -->\n).*?(?=<!-- end (?P=name) -->)", re.DOTALL)
DECLARED_ELSEWHERE = (SamplingParams, PresetConfig)
"""Parts of the configuration whose keys are request parameters: docs/api.md lists those."""

Row = Sequence[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table. `|` would end a cell, and `<` outside of code would begin an HTML tag."""
    cells = [[cell if "`" in cell else cell.replace("|", "\\|").replace("<", "\\<") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def type_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON schema in a few words: `integer, from 1`."""
    if "$ref" in schema:
        return type_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        kinds = [type_of(one, definitions) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'], definitions)}s"
    by_name = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    if isinstance(by_name[0], dict):
        return f"{type_of(by_name[0], definitions)} by name"
    return ", ".join([schema.get("type", "anything"), *bounds_of(schema)])


def bounds_of(schema: Mapping[str, Any]) -> Iterator[str]:
    """The range of a number."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"{low:g} to {high:g}"
    elif low is not None:
        yield f"from {low:g}"
    elif high is not None:
        yield f"up to {high:g}"
    if "exclusiveMinimum" in schema:
        yield f"over {schema['exclusiveMinimum']:g}"
    if "multipleOf" in schema:
        yield f"multiple of {schema['multipleOf']:g}"


def default_of(field: FieldInfo, value: Any) -> str:
    """`value` as JSON; empty where it is null."""
    if field.is_required():
        return "required"
    return "" if value is None else f"`{json.dumps(value)}`"


def field_rows(
    model: type[BaseModel], names: Iterable[str], prefix: str = "", defaults: BaseModel | None = None
) -> Iterator[Row]:
    """Name, type, default and meaning of fields. The defaults are the declared ones, or those of an instance."""
    schema = model.model_json_schema()
    for name in names:
        field, entry = model.model_fields[name], schema["properties"][name]
        value = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        meaning = field.description or next(one["description"] for one in entry["anyOf"] if "description" in one)
        yield [f"`{prefix}{name}`", type_of(entry, schema.get("$defs", {})), default_of(field, value), meaning]


def fields_table(*models: type[BaseModel], skip: Iterable[str] = ()) -> str:
    """The fields of models, each field once."""
    left_out, rows = set(skip), []
    for model in models:
        names = [name for name in model.model_fields if name not in left_out]
        rows += field_rows(model, names)
        left_out |= set(names)
    return table(["field", "type", "default", "meaning"], rows)


def sampling_table() -> str:
    """The values of one row, and the key of each in an image's infotext."""
    keys = {name: mark.key for name, field in SamplingParams.model_fields.items() for mark in marks_of(field)}
    rows = [[*row, keys.get(row[0].strip("`"), "")] for row in field_rows(SamplingParams, SamplingParams.model_fields)]
    return table(["field", "type", "default", "meaning", "infotext"], rows)


def marks_of(field: FieldInfo) -> list[Infotext]:
    """How a field is written into the infotext, if it is."""
    return [mark for mark in field.metadata if isinstance(mark, Infotext)]


def config_table(model: type[BaseModel]) -> str:
    """Every key of a part of the configuration, nested keys by their path."""
    return table(["key", "type", "default", "meaning"], config_rows(model))


def config_rows(model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> Iterator[Row]:
    """The keys below `prefix`, depth first."""
    for name, field in model.model_fields.items():
        nested, is_named = nested_model(field.annotation)
        if nested is None:
            yield from field_rows(model, [name], prefix, defaults)
            continue
        path = f"{prefix}{name}{'.NAME' if is_named else ''}"
        declared = issubclass(nested, DECLARED_ELSEWHERE)
        kind = "[parameters](api.md#parameters)" if declared else "section"
        yield [f"`{path}`", kind, "required" if field.is_required() else "", field.description or ""]
        own = set(PresetConfig.model_fields) - set(GenerationParams.model_fields)
        if nested is PresetConfig:
            yield from field_rows(PresetConfig, sorted(own), f"{path}.")
        elif not declared:
            yield from config_rows(nested, f"{path}.", field.default if isinstance(field.default, nested) else None)


def nested_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model of a nested section, and whether the section has one for each name."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation, False
    for one in get_args(annotation):
        found, _ = nested_model(one)
        if found is not None:
            return found, get_origin(annotation) is dict
    return None, False


def routes_table(*apis: str) -> str:
    """The routes of some APIs, with what each does."""
    app = FastAPI()
    for module in ROUTE_MODULES:
        # The routes are listed, never called: the dispatcher needs no parts.
        app.include_router(module.router(Dispatcher.__new__(Dispatcher)))
    rows = []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if api_of(path) in apis:
                text = operation.get("description", operation["summary"])
                rows.append([f"`{method.upper()} {path}`", " ".join(text.split())])
    return table(["route", "what it does"], rows)


def samplers_table() -> str:
    """Every sampler."""
    rows = [
        [f"`{name}`", one.label, one.diffusers_class, ", ".join(one.allowed), ", ".join(one.aliases)]
        for name, one in SAMPLERS.items()
    ]
    return table(["sampler", "AUTOMATIC1111", "diffusers", "schedules", "also called"], rows)


def schedules_table() -> str:
    """Every noise schedule."""
    rows = [[f"`{name}`", one.label, ", ".join(one.aliases)] for name, one in SCHEDULES.items()]
    return table(["schedule", "AUTOMATIC1111", "also called"], rows)


def errors_table() -> str:
    """Every kind of error that an answer can have."""
    kinds = sorted(error_kinds(DarkroomError), key=lambda kind: kind.status)
    rows = [[f"{kind.status}", f"`{kind.code}`", first_paragraph(kind)] for kind in kinds]
    bug = [f"{DarkroomError.status}", f"`{DarkroomError.code}`", "A bug in Darkroom. The log has the traceback."]
    return table(["status", "code", "meaning"], [*rows, bug])


def error_kinds(kind: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    """The classes below, but those that stop the start."""
    for below in kind.__subclasses__():
        if below is not ConfigError:
            yield below
            yield from error_kinds(below)


def first_paragraph(kind: type) -> str:
    """Of a class's docstring, in one line."""
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())


def rooms_table() -> str:
    """Each package, by its own docstring."""
    rows = []
    for path in sorted((ROOT / "serve_app").rglob("__init__.py")):
        found = inspect.cleandoc(docstring_of(path))
        if found and "training" not in path.parts:
            rows.append([f"`{path.parent.relative_to(ROOT)}/`", " ".join(found.split())])
    return table(["package", "what lives there, and what does not"], rows)


def docstring_of(path: Path) -> str:
    """A module's docstring, without importing it."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def layers_list() -> str:
    """The layers that `lint-imports` holds, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    return "\n".join(["```", *(layer.replace("serve_app.", "") for layer in layers), "```"])


PARTS: Mapping[str, Callable[[], str]] = {
    "sampling-parameters": sampling_table,
    "request-parameters": lambda: fields_table(GenerationParams, skip=SamplingParams.model_fields),
    "generate-fields": lambda: fields_table(GenerateBody, skip=GenerationParams.model_fields),
    "hires-fields": lambda: fields_table(HiresParams),
    "lora-fields": lambda: fields_table(LoraWeight),
    "openai-fields": lambda: fields_table(OpenAIBody, GenerationsBody, EditsBody),
    "a1111-fields": lambda: fields_table(A1111Txt2ImgBody, A1111Img2ImgBody),
    "native-routes": lambda: routes_table("txt2img", "v1"),
    "openai-routes": lambda: routes_table("openai"),
    "a1111-routes": lambda: routes_table("a1111"),
    "other-routes": lambda: routes_table("other"),
    "samplers": samplers_table,
    "schedules": schedules_table,
    "errors": errors_table,
    "args": lambda: config_table(AppConfig),
    "ingress-settings": lambda: config_table(IngressConfig),
    "model-settings": lambda: config_table(ModelConfig),
    "safety-settings": lambda: config_table(SafetyConfig),
    "rooms": rooms_table,
    "layers": layers_list,
}
"""Each generated part, by its name."""


def fill_parts(text: str) -> str:
    """A page with its generated parts as they should be. Raises KeyError for a part that nobody generates."""
    return PART.sub(lambda found: f"{found[1]}{PARTS[found['name']]()}\n", text)


def main() -> None:
    """Rewrite all pages."""
    for page in sorted(Path(__file__).parent.glob("*.md")):
        page.write_text(fill_parts(page.read_text()))


if __name__ == "__main__":
    main()
