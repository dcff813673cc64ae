"""The CDK app: `make synth` writes its templates to cdk.out; `make cdk DO="deploy --all"` deploys them."""

import os
import sys
from typing import Final

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra import layers
from infra.layers import Layers
from infra.options import Options, OptionsError
from infra.stack import Csms
from infra.stack.waf import Guard

# Creation traces name temporary folders, so they would differ in every synthesis.
NO_TRACES: Final = {"aws:cdk:disable-creation-stack-traces": True, "aws:cdk:disable-stack-trace": True}


def add_stacks(app: cdk.App, *, built: Layers) -> Csms:
    """Add the stacks that the app's context selects, with cdk-nag's checks. Raises OptionsError if the context is
    invalid."""
    options = Options.load(app.node.get_all_context())
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    if not options.has_waf:
        return Csms(app, "Csms", layers=built, options=options)

    region = os.environ.get("CDK_DEFAULT_REGION") or os.environ.get("AWS_REGION")
    account = os.environ.get("CDK_DEFAULT_ACCOUNT")
    if not region:
        raise OptionsError("csms:webRequests, csms:ocppRequests: WAF needs to know the Region: set AWS_REGION")
    guard = Guard(
        app,
        "Guard",
        options=options,
        stack_name=f"{options.stack_name}-Guard",
        env=cdk.Environment(account=account, region="us-east-1"),
    )
    return Csms(
        app,
        "Csms",
        layers=built,
        options=options,
        web_acl_arn=guard.web_acl.attr_arn,
        env=cdk.Environment(account=account, region=region),
    )


def main() -> None:
    app = cdk.App(context=NO_TRACES)
    aim = layers.target(sys.version_info[:2], sys.executable)
    try:
        add_stacks(app, built=layers.build_layers(aim))
    except OptionsError as wrong:
        sys.exit(str(wrong))
    if notice := layers.compile_warning(aim):
        print(notice, file=sys.stderr)
    app.synth()


if __name__ == "__main__":
    main()
