"""Turns the synthesized cdk.out into one that the emulator can deploy."""

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any, Final

from emulator.adapt import AdaptationError, Json, Place, adapt_template

# The roles that the CLI would assume are removed. The emulator's IAM denies the publishing role what the bootstrap
# allows it, so the CLI keeps its own credentials. (The roles of the stack's functions are enforced.)
ROLES: Final = frozenset({"assumeRoleArn", "cloudFormationExecutionRoleArn", "lookupRole"})
COMPILED: Final = frozenset({".so", ".pyd", ".dylib"})


def read_template(assembly: Path, stack: str) -> Json:
    """The stack's template in the assembly."""
    template: Json = json.loads((assembly / f"{stack}.template.json").read_text())
    return template


def prepare(assembly: Path, stack: str, place: Place) -> None:
    """Change the assembly, which is the emulator's own copy. Raises AdaptationError if a layer has another version of a
    package than is installed here."""
    for name in ("manifest.json", f"{stack}.assets.json"):
        _rewrite(assembly / name, _drop_roles)
    _rewrite(assembly / f"{stack}.template.json", lambda template: adapt_template(template, place))
    for packages in assembly.glob("asset.*/python"):
        _compile_for_this_machine(packages)


def bucket_files(assembly: Path, template: Json) -> Iterator[tuple[str, str, Path]]:
    """The files that removed resources would put in buckets: the bucket's logical id, the key, and the file."""
    for row in template["Resources"].values():
        if row["Type"] != "Custom::CDKBucketDeployment":
            continue
        wanted = row["Properties"]
        for source in wanted["SourceObjectKeys"]:
            folder = assembly / f"asset.{Path(source).stem}"
            for file in (path for path in folder.rglob("*") if path.is_file()):
                key = f"{wanted['DestinationBucketKeyPrefix']}/{file.relative_to(folder).as_posix()}"
                yield wanted["DestinationBucketName"]["Ref"], key, file


def _rewrite(path: Path, change: Callable[[Json], Json]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=1))


def _drop_roles(value: Any) -> Any:
    """The manifest without the roles that the CLI would assume."""
    match value:
        case dict():
            return {key: _drop_roles(part) for key, part in value.items() if key not in ROLES}
        case list():
            return [_drop_roles(part) for part in value]
    return value


def _compile_for_this_machine(packages: Path) -> None:
    """Replace the layer's compiled modules by those of this interpreter, from the same versions of the same
    packages."""
    for packaged in distributions(path=[str(packages)]):
        installed = distribution(packaged.name)
        if packaged.version != installed.version:
            raise AdaptationError(
                f"The layer holds {packaged.name} {packaged.version}, and {installed.version} is installed here."
            )
        for path in _compiled_modules(installed):
            target = packages / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(installed.locate_file(path), target)


def _compiled_modules(installed: Distribution) -> list[Path]:
    files = [Path(str(file)) for file in installed.files or ()]
    return [file for file in files if file.suffix in COMPILED and ".." not in file.parts]
