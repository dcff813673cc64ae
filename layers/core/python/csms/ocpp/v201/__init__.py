"""OCPP 2.0.1: its framing and schemas. No station is offered this version yet, because no action is implemented."""

from __future__ import annotations

from typing import Final

from csms.ocpp.framing import Framing
from csms.ocpp.schemas import SchemaSet

FRAMING: Final = Framing(is_unreadable_answered=True)
"""Error codes in canonical spelling; unreadable frames are answered under the id "-1" (part 4, section 4.2.3)."""

_ACTIONS: Final = """
    Authorize BootNotification CancelReservation CertificateSigned ChangeAvailability ClearCache ClearChargingProfile
    ClearDisplayMessage ClearVariableMonitoring ClearedChargingLimit CostUpdated CustomerInformation DataTransfer
    DeleteCertificate FirmwareStatusNotification Get15118EVCertificate GetBaseReport GetCertificateStatus
    GetChargingProfiles GetCompositeSchedule GetDisplayMessages GetInstalledCertificateIds GetLocalListVersion GetLog
    GetMonitoringReport GetReport GetTransactionStatus GetVariables Heartbeat InstallCertificate LogStatusNotification
    MeterValues NotifyChargingLimit NotifyCustomerInformation NotifyDisplayMessages NotifyEVChargingNeeds
    NotifyEVChargingSchedule NotifyEvent NotifyMonitoringReport NotifyReport PublishFirmware
    PublishFirmwareStatusNotification ReportChargingProfiles RequestStartTransaction RequestStopTransaction
    ReservationStatusUpdate ReserveNow Reset SecurityEventNotification SendLocalList SetChargingProfile
    SetDisplayMessage SetMonitoringBase SetMonitoringLevel SetNetworkProfile SetVariableMonitoring SetVariables
    SignCertificate StatusNotification TransactionEvent TriggerMessage UnlockConnector UnpublishFirmware UpdateFirmware
"""
SCHEMAS: Final = SchemaSet(
    actions=frozenset(_ACTIONS.split()),
    folder="v201/schemas",
    request_name="{}Request.json",
    response_name="{}Response.json",
)
