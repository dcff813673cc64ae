"""OCPP-J frames: what is understood, what is answered, what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from csms.model import Protocol
from csms.ocpp.framing import (
    Call,
    CallError,
    CallResult,
    ErrorCode,
    Ignored,
    Malformed,
    internal_error,
    parse_error_code,
)
from tests.versions import decode, encode, spelling


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('[2,"1","Heartbeat",{}]', Call("1", "Heartbeat", {})),
        (b'[2, "1", "Authorize", {"idTag": "\xc3\xa4"}]', Call("1", "Authorize", {"idTag": "ä"})),
        ('[3,"1",{"status":"Accepted"}]', CallResult("1", {"status": "Accepted"})),
        ('[4,"1","InternalError","oh",{"a":1}]', CallError("1", "InternalError", "oh", {"a": 1})),
    ],
)
def test_each_message_type_is_decoded(frame: str | bytes, message: object) -> None:
    assert message == decode(frame)


@pytest.mark.note("F39")
@pytest.mark.parametrize(
    "frame",
    [
        '[5,"1",{}]',
        '["2","1","Heartbeat",{}]',
        '[null,"1"]',
        '[-1,"1","x",{}]',
        "[[]]",
        '["\\ud800"]',
        "[NaN]",
        "[1e999]",
        '[02,"1","Heartbeat",{}]',
    ],
)
@pytest.mark.parametrize("protocol", Protocol)
def test_unknown_message_type_is_ignored(frame: str, protocol: Protocol) -> None:
    assert Ignored("unknown message type") == decode(frame, protocol)


@pytest.mark.note("F39")
@pytest.mark.parametrize(
    ("frame", "message"),
    [('[2,"1","Heartbeat",null]', Call("1", "Heartbeat", {})), ('[3,"1",null]', CallResult("1", {}))],
)
def test_null_payload_is_empty(frame: str, message: object) -> None:
    assert message == decode(frame)


@pytest.mark.note("F39")
@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ('[4,"1","InternalError","oh"]', CallError("1", "InternalError", "oh", {})),
        ('[4,"1","InternalError"]', CallError("1", "InternalError", "", {})),
        ('[4,"1"]', CallError("1", "GenericError", "", {})),
        ('[4,"1","InternalError",null,null]', CallError("1", "InternalError", "", {})),
        ('[4,"1",17,17,"text"]', CallError("1", "GenericError", "", {})),
        ('[4,"1","InternalError","oh",{},"more"]', CallError("1", "InternalError", "oh", {})),
    ],
)
def test_malformed_callerror_still_ends_call(frame: str, error: CallError) -> None:
    assert error == decode(frame)


@pytest.mark.note("F39")
def test_action_names_keep_case() -> None:
    assert Call("1", "heartbeat", {}) == decode('[2,"1","heartbeat",{}]')


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ("", ErrorCode.RPC_FRAMEWORK_ERROR),
        (',"Heartbeat"', ErrorCode.RPC_FRAMEWORK_ERROR),
        (',"Heartbeat",{},{}', ErrorCode.RPC_FRAMEWORK_ERROR),
        (",17,{}", ErrorCode.RPC_FRAMEWORK_ERROR),
        (",null,{}", ErrorCode.RPC_FRAMEWORK_ERROR),
        (',"Heartbeat",[]', ErrorCode.FORMAT_VIOLATION),
        (',"Heartbeat","text"', ErrorCode.FORMAT_VIOLATION),
    ],
)
def test_broken_call_returns_formation_violation(rest: str, code: ErrorCode) -> None:
    answer = decode(f'[2,"1"{rest}]')

    assert isinstance(answer, Malformed)
    assert ("1", code) == (answer.unique_id, answer.code)
    assert "FormationViolation" == spelling(answer.code, Protocol.OCPP16)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not JSON",
        b"\xff\xfe",
        "\ud800",
        '[2,"1\ud800","Heartbeat",{}]',
        '[2,"1',
        '[2,17,"Heartbeat",{}',
        '[2,"","Heartbeat",{}',
        '[2,"' + "x" * 129 + '","Heartbeat",{}',
        '[2,"\\x","Heartbeat",{}]',
        '[2"1","Heartbeat",{}]',
        '[2,"a"b","Heartbeat",{}]',
        '{"a":[2,"1",',
        "1" * 5000,
        "[" * 100_000,
        "{}",
        "[]",
        "null",
        '[2,null,"Heartbeat",{}]',
        '[2,17,"Heartbeat",{}]',
        '[2,"","Heartbeat",{}]',
        '[2,"' + "x" * 129 + '","Heartbeat",{}]',
        "[2]",
    ],
)
def test_unidentifiable_frame_is_answered_only_in_ocpp201(frame: str | bytes) -> None:
    answer = decode(frame, Protocol.OCPP201)

    assert isinstance(decode(frame, Protocol.OCPP16), Ignored)
    assert isinstance(answer, Malformed)
    assert ("-1", ErrorCode.RPC_FRAMEWORK_ERROR) == (answer.unique_id, answer.code)


@pytest.mark.parametrize(
    "frame", ['[3,"1"]', '[3,"1",[]]', '[3,"1",{},{}]', "[3,null,{}]", '[4,null,"InternalError"]', "[4]"]
)
@pytest.mark.parametrize("protocol", Protocol)
def test_broken_response_is_ignored(frame: str, protocol: Protocol) -> None:
    assert isinstance(decode(frame, protocol), Ignored)


@pytest.mark.note("F45")
def test_overlong_id_is_accepted_and_flagged() -> None:
    long = decode('[2,"' + "x" * 37 + '","Heartbeat",{}]')
    specified = decode('[2,"' + "x" * 36 + '","Heartbeat",{}]')

    assert isinstance(long, Call)
    assert isinstance(specified, Call)
    assert (37, ("uniqueId: longer than 36 characters",)) == (len(long.unique_id), long.flags)
    assert () == specified.flags


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    ("payload", "meant", "flag"),
    [
        ('{"a":[,{"b":1}]}', {"a": [{"b": 1}]}, "leading comma"),
        ('{ , "a":1}', {"a": 1}, "leading comma"),
        ('{"a":[,]}', {"a": []}, "leading comma"),
        ('{"a":[1,,2]}', {"a": [1, 2]}, "doubled comma"),
        ('{"a":1, ,\n,"b":2}', {"a": 1, "b": 2}, "doubled comma"),
        ('{"a":[1,2 , ]}', {"a": [1, 2]}, "trailing comma"),
        ('{"a":1,}', {"a": 1}, "trailing comma"),
        ('{"a":"1\n2\x1f"}', {"a": "1\n2\x1f"}, "control character"),
        ('{"a":"\\\\\n"}', {"a": "\\\n"}, "control character"),
        ('{"a":\x0b1}', {"a": 1}, "control character"),
        ('{"a":"7\0\0"}', {"a": "7"}, "NUL"),
        ('{"a":7\0}', {"a": 7}, "NUL"),
        ('{"a":"\\ud800"}', {"a": "\ufffd"}, "lone surrogate"),
        ('{"a":"\\uDC00\\uD83D\\uDE00\\uD83D"}', {"a": "\ufffd\U0001f600\ufffd"}, "lone surrogate"),
        ('{"a":"\\\\ud800\\\\\\ud800"}', {"a": "\\ud800\\\ufffd"}, "lone surrogate"),
        ('{"\\udfff":"ä"}', {"\ufffd": "ä"}, "lone surrogate"),
        ('{"a":1E999}', {"a": None}, "not a finite number"),
        ('{"a":[-1.5e+400,1e300]}', {"a": [None, 1e300]}, "not a finite number"),
        ('{"a":' + "9" * 400 + "}", {"a": None}, "not a finite number"),
        ('{"a":[NaN,-Infinity,+inf,nan]}', {"a": [None] * 4}, "not a finite number"),
        ('{"a":01}', {"a": "01"}, "leading zero"),
        ('{"a":[-01,00.5,0,10]}', {"a": [-1, 0.5, 0, 10]}, "leading zero"),
        ('{"a":[+1,+.5]}', {"a": [1, 0.5]}, "leading plus"),
        ('{"a":[.5,-.5]}', {"a": [0.5, -0.5]}, "no digit before the point"),
        ('{"a":[5.,-5. ,1.e2]}', {"a": [5, -5, 100]}, "no digit after the point"),
    ],
)
def test_obvious_mend_is_taken_and_flagged(payload: str, meant: dict[str, Any], flag: str) -> None:
    call = decode(f'[2,"1","DataTransfer",{payload}]')

    assert Call("1", "DataTransfer", meant) == call
    assert isinstance(call, Call)
    assert f"text: {flag}" in call.flags
    assert CallResult("1", meant) == decode(f'[3,"1",{payload}]')
    assert CallError("1", "GenericError", "", meant) == decode(f'[4,"1","GenericError","",{payload}]')


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    ("frame", "flags"),
    [
        ('\ufeff[2,"1","Heartbeat",{}]', ("byte order mark",)),
        (b'\xef\xbb\xbf[2,"1","Heartbeat",{}]\r\n', ("byte order mark",)),
        ('[2,"1","Heartbeat",{}]\0\0', ("NUL",)),
        ('[2,"1","Heart\0beat",{\0}\0]', ("NUL",)),
        ('[2,"1","Heartbeat",{}]]', ("surplus last character",)),
        ('[2,"1","Heartbeat",{}] }\n', ("surplus last character",)),
        ('[2,"1","Heartbeat",{}]"', ("surplus last character",)),
        ('[2,"1","Heartbeat",{}],', ("surplus last character",)),
        (
            '\ufeff[,2,,"1","Heart\0beat",{,},]\0x',
            ("NUL", "byte order mark", "doubled comma", "leading comma", "trailing comma", "surplus last character"),
        ),
        ('[2,"1","Heartbeat",{}]', ()),
    ],
)
def test_mends_around_message_are_flagged(frame: str | bytes, flags: tuple[str, ...]) -> None:
    call = decode(frame)

    assert Call("1", "Heartbeat", {}) == call
    assert isinstance(call, Call)
    assert tuple(f"text: {flag}" for flag in flags) == call.flags


def test_mends_are_flagged_beside_long_id() -> None:
    call = decode('[2,"' + "x" * 37 + '","Heartbeat",{},]')

    assert isinstance(call, Call)
    assert ("text: trailing comma", "uniqueId: longer than 36 characters") == call.flags


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    "rest",
    [
        "",
        "{}",
        '{"a":"text',
        '{"a":"\\',
        "{'a':'b'}]",
        '{"a":}]',
        '{"a":,"b":1}]',
        '{"a":1 "b":2}]',
        '{"a":1\0002}]',
        '{"a":1\x012}]',
        '{"a" 1}]',
        "{01:1}]",
        "{01 :1}]",
        "{a:1}]",
        '{"a":"say "hi""}]',
        '{"a":"1\\\n2"}]',
        '{"a":"1\\\0n"}]',
        '{"a":"\\x41"}]',
        '{"a":1.2.}]',
        '{"a":.}]',
        '{"a":+-1}]',
        '{"a":0x1F}]',
        '{"a":nano}]',
        '{"a":1,5}]',
        '{"a":2026-01-02}]',
        '{"a":1\\u0020}]',
        '{"a":"b"}]}}',
        '{"a":"b"}][2',
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize("protocol", Protocol)
def test_unclear_text_with_id_returns_formation_violation(rest: str, protocol: Protocol) -> None:
    answer = decode(f'[2,"1","DataTransfer",{rest}', protocol)

    assert isinstance(answer, Malformed)
    assert ("1", ErrorCode.FORMAT_VIOLATION) == (answer.unique_id, answer.code)
    assert CallError("1", "GenericError") == decode(f'[4,"1","InternalError",{rest}', protocol)
    assert isinstance(decode(f'[3,"1",{rest}', protocol), Ignored)


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("text", "unique_id"),
    [
        ("[2,'1','Heartbeat',{}]", "1"),
        ('\ufeff\n[ 2 , "a\\"b" , "Heart', 'a"b'),
        ('[2,"\\u00e4"', "ä"),
        ('[2,"1"]]]', "1"),
        ("\0[2,'1'", "1"),
        ("[2," + '"' + "x" * 128 + '",', "x" * 128),
    ],
)
def test_id_is_read_from_beginning(text: str, unique_id: str) -> None:
    answer = decode(text)

    assert isinstance(answer, Malformed)
    assert unique_id == answer.unique_id


@pytest.mark.parametrize(
    "text", ['[3,"1",{"a":', "[3,'1',{}]", "[3,17,{", "[4,17,", '[4,"1', "[4,'" + "x" * 129 + "',"]
)
@pytest.mark.parametrize("protocol", Protocol)
def test_unreadable_response_is_ignored(text: str, protocol: Protocol) -> None:
    assert isinstance(decode(text, protocol), Ignored)


@pytest.mark.parametrize(
    "piece",
    [
        *(",", "[", "{", "]", '"', "'", "\\", " ", "\0", "\x01", "\ufeff", "0", "+", "-", ".", "e", ", ", "[,", "{,"),
        *(
            "[],",
            '{"":',
            '"",',
            '\\"',
            "\\\0",
            "\\\\\n",
            "\\ud800",
            "\\ud83d\\ude00",
            "01,",
            "1.,",
            "1e9,",
            "1e999,",
            "nan,",
        ),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ('[2,"1","A",[', ",]]"), ('[2,"1","A",["', '"],]'), ('[2,"', "")]
)
def test_hostile_text_of_full_size_is_decoded(piece: str, before: str, after: str) -> None:
    """With work that grows faster than the text, each of these would take minutes."""
    message = decode(before + piece * (131_072 // len(piece)) + after)

    assert isinstance(message, Ignored | Malformed)


def test_failed_mended_call_returns_internal_error() -> None:
    assert '[4,"1","InternalError","The message could not be handled.",{}]' == internal_error('[2,"1","Heartbeat",{},]')
    assert internal_error('[2,"1","Heartbeat",{') is None


@pytest.mark.parametrize("levels", [30, 31, 300, 1000])
def test_payload_nesting_is_limited_to_30(levels: int) -> None:
    nested = '{"a":' * levels + "1" + "}" * levels

    call = decode(f'[2,"1","DataTransfer",{nested}]')
    result = decode(f'[3,"1",{nested}]')
    error = decode(f'[4,"1","InternalError","",{nested}]')

    assert (levels <= 30) == isinstance(call, Call)
    assert (levels <= 30) == isinstance(result, CallResult)
    assert (levels <= 30) == (isinstance(error, CallError) and error.details != {})


def test_wide_payload_is_not_too_deep() -> None:
    frame = '[2,"1","MeterValues",{"meterValue":[' + ",".join(["[{}]"] * 500) + "]}]"

    assert isinstance(decode(frame), Call)


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (Call("1", "Reset", {"type": "Soft"}), '[2,"1","Reset",{"type":"Soft"}]'),
        (CallResult("1", {}), '[3,"1",{}]'),
        (CallError("1", ErrorCode.NOT_IMPLEMENTED), '[4,"1","NotImplemented","",{}]'),
        (CallError("1", ErrorCode.FORMAT_VIOLATION, "oh", {"a": 1}), '[4,"1","FormationViolation","oh",{"a":1}]'),
        (CallError("1", "FormatViolation"), '[4,"1","FormatViolation","",{}]'),
    ],
)
def test_message_is_encoded_as_compact_json(message: Call | CallResult | CallError, frame: str) -> None:
    assert frame == encode(message)


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("code", "in_16", "in_201"),
    [
        (ErrorCode.NOT_IMPLEMENTED, "NotImplemented", "NotImplemented"),
        (ErrorCode.NOT_SUPPORTED, "NotSupported", "NotSupported"),
        (ErrorCode.INTERNAL_ERROR, "InternalError", "InternalError"),
        (ErrorCode.PROTOCOL_ERROR, "ProtocolError", "ProtocolError"),
        (ErrorCode.SECURITY_ERROR, "SecurityError", "SecurityError"),
        (ErrorCode.FORMAT_VIOLATION, "FormationViolation", "FormatViolation"),
        (ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "PropertyConstraintViolation", "PropertyConstraintViolation"),
        (ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION, "OccurenceConstraintViolation", "OccurrenceConstraintViolation"),
        (ErrorCode.TYPE_CONSTRAINT_VIOLATION, "TypeConstraintViolation", "TypeConstraintViolation"),
        (ErrorCode.GENERIC_ERROR, "GenericError", "GenericError"),
        (ErrorCode.MESSAGE_TYPE_NOT_SUPPORTED, "GenericError", "MessageTypeNotSupported"),
        (ErrorCode.RPC_FRAMEWORK_ERROR, "FormationViolation", "RpcFrameworkError"),
    ],
)
def test_error_codes_follow_protocol_spelling(code: ErrorCode, in_16: str, in_201: str) -> None:
    error = CallError("1", code)

    assert (in_16, in_201) == (spelling(code, Protocol.OCPP16), spelling(code, Protocol.OCPP201))
    assert f'[4,"1","{in_16}","",{{}}]' == encode(error, Protocol.OCPP16)
    assert f'[4,"1","{in_201}","",{{}}]' == encode(error, Protocol.OCPP201)


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FormationViolation", ErrorCode.FORMAT_VIOLATION),
        ("FormatViolation", ErrorCode.FORMAT_VIOLATION),
        ("OccurenceConstraintViolation", ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION),
        ("OccurrenceConstraintViolation", ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION),
        ("RpcFrameworkError", ErrorCode.RPC_FRAMEWORK_ERROR),
        ("VendorTrouble", ErrorCode.GENERIC_ERROR),
        ("", ErrorCode.GENERIC_ERROR),
    ],
)
def test_every_error_code_spelling_is_understood(text: str, code: ErrorCode) -> None:
    assert code is parse_error_code(text)
