"""The stack on the emulator: synthesize, adapt, bootstrap, deploy, compare and destroy it."""

import json
import mimetypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emulator import assembly, aws
from emulator.adapt import Json, Place
from emulator.aws import Emulator

STACK: Final = "Csms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """The payment provider, and the keys that an operator stores after the first deployment."""

    url: str
    api_key: str
    webhook_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The deployed stack. `synthesized` is the template that the CDK wrote, `assembly` the folder that was deployed."""

    emulator: Emulator
    assembly: Path
    synthesized: Json
    outputs: Mapping[str, str]

    def physical_id(self, logical_id: str) -> str:
        """The name or id that the emulator gave to a resource of the stack."""
        formation = self.emulator.client("cloudformation")
        detail = formation.describe_stack_resource(StackName=STACK, LogicalResourceId=logical_id)["StackResourceDetail"]
        name: str = detail["PhysicalResourceId"]
        return name

    def template(self) -> Json:
        """The template that was deployed."""
        return assembly.read_template(self.assembly, STACK)

    def diff(self) -> str:
        """What a second deployment of the same assembly would change. Raises EmulatorError if it is anything."""
        return self.emulator.run_cdk("diff", STACK, "--app", str(self.assembly), "--fail")

    def destroy(self) -> None:
        """Delete the stack; what it retains stays."""
        self.emulator.run_cdk("destroy", STACK, "--app", str(self.assembly), "--force")


@contextmanager
def deploy(payments: Payments, context: Mapping[str, str]) -> Iterator[Deployment]:
    """Deploy the stack with this context on an emulator of its own, which ends with the block."""
    with aws.run_emulator() as emulator:
        cdk_out, outputs = emulator.home / "cdk.out", emulator.home / "outputs.json"
        aws.synthesize(cdk_out, emulator.home, context)
        synthesized = assembly.read_template(cdk_out, STACK)
        assembly.prepare(cdk_out, STACK, Place(port=emulator.port, payments_url=payments.url))
        emulator.bootstrap()
        app = ("--app", str(cdk_out))
        emulator.run_cdk("deploy", STACK, *app, "--require-approval", "never", "--outputs-file", str(outputs))
        deployment = Deployment(
            emulator=emulator,
            assembly=cdk_out,
            synthesized=synthesized,
            outputs=json.loads(outputs.read_text())[STACK],
        )
        _put_files(deployment)
        keys = json.dumps({"api_key": payments.api_key, "webhook_secret": payments.webhook_secret})
        secrets = emulator.client("secretsmanager")
        secrets.put_secret_value(SecretId=deployment.outputs["StripeSecretArn"], SecretString=keys)
        yield deployment


def _put_files(deployment: Deployment) -> None:
    """Fill the buckets, in place of the resources that the emulator does not support."""
    s3 = deployment.emulator.client("s3")
    for bucket, key, file in assembly.bucket_files(deployment.assembly, deployment.synthesized):
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        s3.put_object(Bucket=deployment.physical_id(bucket), Key=key, Body=file.read_bytes(), ContentType=kind)
