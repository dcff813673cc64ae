"""The names of what some makes of stations do differently. Stations store the plain words, so that an older release can
read a station with a quirk that it does not know."""

from __future__ import annotations

from enum import StrEnum


class Quirk(StrEnum):
    """What a make does differently; what each means, and whether csms acts on it, is in `csms.stations.quirks`."""

    STARTS_BY_ITSELF = "starts_by_itself"
    START_NEEDS_PLUG = "start_needs_plug"
    HEXADECIMAL_TAG = "hexadecimal_tag"
    TAG_UP_TO_19 = "tag_up_to_19"
    TAG_UP_TO_18 = "tag_up_to_18"
    TAG_UP_TO_16 = "tag_up_to_16"
    CLOSES_SILENT_SOCKET = "closes_silent_socket"
    STARTS_FROM_FINISHING = "starts_from_finishing"
    APPENDS_TO_TAG = "appends_to_tag"
    REPEATS_START_REGISTER = "repeats_start_register"
    FIRST_REGISTER_IS_ZERO = "first_register_is_zero"
    READINGS_FROM_ZERO = "readings_from_zero"
    STOP_BELOW_START = "stop_below_start"
    SECOND_START_FOR_STOP = "second_start_for_stop"
    REJECTS_REMOTE_STOP = "rejects_remote_stop"
    AVAILABLE_BEFORE_STOP = "available_before_stop"
    STORED_READINGS_AT_ONCE = "stored_readings_at_once"
    DROPS_SOCKET_AFTER_START = "drops_socket_after_start"
    CLOCK_IS_SET_BACK = "clock_is_set_back"
    NUMERIC_VALUES = "numeric_values"
    METER_VALUE_IS_OBJECT = "meter_value_is_object"
    EMPTY_SAMPLES = "empty_samples"
    LEADING_COMMA = "leading_comma"
    NO_ERROR_CODE = "no_error_code"
    NO_VENDOR = "no_vendor"
    LONG_SERIAL_NUMBER = "long_serial_number"
