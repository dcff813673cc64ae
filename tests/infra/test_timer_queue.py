"""The queue of timers in the synthesized stack: failures, concurrency, and the order of its creation."""

from csms.adapters.sqs import LONGEST_SECONDS
from infra import routes


def test_failing_timers_become_dead_letters(synthesized):
    letters, _ = synthesized.find_queue("DeadLetters")
    _, queue = synthesized.find_queue("Timers")
    function = synthesized.functions()[routes.TIMERS.function]
    deliveries, pause = queue["RedrivePolicy"]["maxReceiveCount"], queue["VisibilityTimeout"]

    assert {"Fn::GetAtt": [letters, "Arn"]} == queue["RedrivePolicy"]["deadLetterTargetArn"]
    assert (routes.TIMERS.receives, routes.TIMERS.retry_seconds) == (deliveries, pause)
    # AWS advises six times the function's time; and a message must not expire before it becomes a dead letter.
    assert 6 * function["Timeout"] == pause
    assert LONGEST_SECONDS + deliveries * pause < queue["MessageRetentionPeriod"]


def test_timers_leave_concurrency_to_others(synthesized):
    source = synthesized.only_resource("AWS::Lambda::EventSourceMapping")
    queue, _ = synthesized.find_queue("Timers")

    assert {"Fn::GetAtt": [queue, "Arn"]} == source["EventSourceArn"]
    assert {"Ref": synthesized.function_ids[routes.TIMERS.function]} == source["FunctionName"]
    assert (routes.TIMERS.batch, {"MaximumConcurrency": 2}) == (source["BatchSize"], source["ScalingConfig"])
    assert ["ReportBatchItemFailures"] == source["FunctionResponseTypes"]


def test_event_source_follows_role_policy(synthesized):
    """Lambda refuses an event source as long as the role may not poll it; the source refers to the function."""
    function = synthesized.template["Resources"][synthesized.function_ids[routes.TIMERS.function]]
    policies = synthesized.resources("AWS::IAM::Policy")

    (policy,) = (key for key in function["DependsOn"] if key in policies)
    assert "sqs:ReceiveMessage" in str(policies[policy])


def test_only_timers_may_invoke_in_a_loop(synthesized):
    found = {name: row.get("RecursiveLoop") for name, row in synthesized.functions().items()}

    assert dict.fromkeys(found) | {routes.TIMERS.function: "Allow"} == found
