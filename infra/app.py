"""The CDK app: `make synth` writes its templates to cdk.out; `npx cdk deploy` deploys them."""

import aws_cdk as cdk

from infra.stack import Csms
from infra.vendor import vendor_layer

app = cdk.App()
Csms(app, "Csms", vendor_layer=vendor_layer())
app.synth()
