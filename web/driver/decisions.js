// What the pages decide from the API's answers. Pure: no DOM, no request, no clock; `now` is in milliseconds.

export const FINAL = new Set(["Completed", "Cancelled", "Failed"]);

const PAID_FOR = new Set(["Authorized", "StartRequested", "Charging", "WaitingForDisconnect"]);
const CANCELLABLE = new Set(["PendingPayment", "Authorized", "StartRequested"]);
const MONEY_AT_REST = new Set(["none", "captured", "released"]);
export const REFRESH_MS = 2_000;
const REVIEW_REFRESH_MS = 30_000;
const CONFIRM_PAUSES_MS = [2_000, 4_000, 8_000, 15_000, 30_000];
const STEPS = ["paid", "starting", "charging", "finished"];
const REACHED = {
  PendingPayment: 0,
  Authorized: 1,
  StartRequested: 1,
  Charging: 2,
  WaitingForDisconnect: 3,
  Completed: 4,
};

// Whether a tariff or a session is free of charge.
export function isFree({ maxAmount }) {
  return maxAmount === 0;
}

export function billsIdle({ idlePricePerMinute, idleMaximum }) {
  return Number(idlePricePerMinute) > 0 && idleMaximum > 0;
}

// The keys of the texts that explain the idle fee.
export function idleTerms({ idleGraceMinutes, idleFreeFrom }) {
  return [
    "price.idleFrom",
    ...(idleGraceMinutes > 0 ? ["price.idleGrace"] : []),
    ...(idleFreeFrom ? ["price.idleWindow"] : []),
    "price.idleMaximum",
  ];
}

// The keys of the texts below the prices.
export function priceTerms(tariff) {
  return [
    billsIdle(tariff) ? "price.coversIdle" : "price.covers",
    ...(tariff.minimumEnergyWh > 0 ? ["price.minimum"] : []),
    ...(Number(tariff.vatPercent) > 0 ? ["price.vat"] : []),
  ];
}

// What the start page offers. `session` is the reservation that this browser began at the connector, or null.
// start: begin a session. follow: open the session. resume: pay, or cancel. giveUp: cancel only, because the payment
// could not start the connector now, or has no page.
export function offer(connector, session, now) {
  if (session === null) return "start";
  if (PAID_FOR.has(session.status)) return "follow";
  const held = session.status === "PendingPayment" && now <= Date.parse(session.expiresAt);
  if (!held || !connector.reasons.includes("ActiveReservation")) return "start";
  return connector.reason === "ActiveReservation" && session.checkoutUrl ? "resume" : "giveUp";
}

export function badge({ startable, status, reason }) {
  if (startable) return { kind: "ready", name: "Ready" };
  if (reason === "ActiveReservation" && status === "Available") return { kind: "busy", name: "Reserved" };
  if (status === "Available") return { kind: "busy", name: "Unknown" };
  return { kind: status === "Occupied" ? "busy" : "out", name: status };
}

// `checkout` is the query parameter of the payment page's redirect: "done", "cancelled" or null.
export function headline(session, checkout) {
  if (session.status === "PendingPayment" && checkout === "done") return "Confirming";
  if (session.status === "PendingPayment" && checkout === "cancelled") return "NotPaid";
  if (session.status === "Authorized" && isFree(session)) return "Reserved";
  if (session.status === "Failed" && session.startedAt) return "Stopped";
  if (isUncharged(session)) return "NoCharge";
  if (isChecked(session)) return "Checking";
  return session.status;
}

// Whether a session with a tariff that is not free ended with nothing to pay.
export function isUncharged(session) {
  return session.status === "Completed" && session.amount === 0 && !isFree(session);
}

// Whether the driver paid when the connector was no longer reserved, in which case nothing is charged.
export function paidTooLate(session) {
  if (!FINAL.has(session.status)) return false;
  const late = session.steps.some(({ event }) => event === "PaymentCameTooLate");
  return late || (session.failureCode === "PaymentTimeout" && session.money !== "none");
}

// The key of the text about idle time while the car is plugged in; null for none.
export function idleNotice({ status, idle, tariff }, now) {
  if (!idle || FINAL.has(status)) return null;
  if (idle.fee >= tariff.idleMaximum) return "idle.most";
  if (!idle.since) return idle.fee > 0 ? "idle.paused" : null;
  if (!idle.feeBeginsAt) return null;
  return idle.fee > 0 || Date.parse(idle.feeBeginsAt) <= now ? "idle.runs" : "idle.soon";
}

// Whether an operator checks the meter before anything is charged.
export function isChecked(session) {
  return session.meterDoubted === true && session.money === "needs_review" && session.amount > 0;
}

// Whether the driver is told, during the session, that an operator will check the meter.
export function willBeChecked(session) {
  return session.meterDoubted === true && !FINAL.has(session.status) && !isFree(session);
}

// Which figures are shown: neither energy nor cost if the meter is doubted.
export function figures(session) {
  const known = session.meterDoubted !== true;
  return {
    energy: known,
    power: known && session.status === "Charging" && session.powerW !== undefined,
    cost: known && !isFree(session),
  };
}

// What an operator has to do: check the meter, or capture, release or refund at the provider.
export function reviewed(session) {
  if (isChecked(session)) return "meter";
  if (session.capturedAmount !== undefined) return "refund";
  return session.status === "Completed" && session.amount > 0 ? "capture" : "release";
}

// Whether charging has not begun and must begin by the start deadline.
export function mustStart(session) {
  return Boolean(session.startDeadline) && (session.status === "Authorized" || session.status === "StartRequested");
}

// What a paid session waits for, as the API's messages without repetition.
export function waits(session) {
  return [...new Set((session.waitingFor ?? []).map(({ message }) => message))];
}

// The connectors at which the driver may have plugged in by mistake, and can continue.
export function offers(session) {
  return (session.pluggedElsewhere ?? []).filter(({ startable }) => startable).map(({ connectorId }) => connectorId);
}

// The connectors at which a car is plugged in that are kept for another driver.
export function keptElsewhere(session) {
  return (session.pluggedElsewhere ?? []).filter(({ startable }) => !startable).map(({ connectorId }) => connectorId);
}

// Whether the session was moved to another connector, because the driver plugged in there.
export function hasMoved(session) {
  return !FINAL.has(session.status) && session.steps.some(({ event }) => event === "Moved");
}

export function isCancellable(session) {
  return CANCELLABLE.has(session.status);
}

// Whether the session has ended and its money is settled.
export function isSettled(session) {
  return FINAL.has(session.status) && MONEY_AT_REST.has(session.money);
}

// The pause before the next request, in milliseconds; longer while an operator must decide, or a station is out of reach.
export function refreshPause(session) {
  return session.money === "needs_review" || session.heldUntil ? REVIEW_REFRESH_MS : REFRESH_MS;
}

// The rows of the progress list: name, state (done, current, failed or todo) and start time.
export function progress(session) {
  const ended = session.status === "Cancelled" || session.status === "Failed";
  const open = isChecked(session) ? REACHED.WaitingForDisconnect : REACHED[session.status];
  const reached = ended ? reachedBeforeEnd(session) : open;
  const began = { paid: session.authorizedAt, charging: session.startedAt, finished: session.stoppedAt };
  const rows = STEPS.map((name, index) => {
    if (index > reached) return { name, state: "todo" };
    if (index < reached) return { name, state: "done", at: began[name] };
    return { name, state: ended ? "failed" : "current", at: began[name] };
  });
  return isFree(session) ? rows.slice(1) : rows;
}

// The lines of the payment card, as [name, minor units]. Once something was captured, the last line is what stays
// charged.
export function bill(session) {
  const { money, maxAmount, capturedAmount, refundedAmount = 0, amount } = session;
  if (money === "none") return [];
  if (money === "released") return [["held", maxAmount], ["released", maxAmount]];
  if (capturedAmount === undefined) return [["held", maxAmount]];
  const released = maxAmount > capturedAmount ? [["released", maxAmount - capturedAmount]] : [];
  const rows = [["held", maxAmount], ...released, ["charged", capturedAmount]];
  const stays = money === "captured" ? capturedAmount - refundedAmount : amount;
  const toCome = capturedAmount - refundedAmount - stays;
  if (refundedAmount > 0) rows.push(["refunded", -refundedAmount]);
  if (toCome > 0) rows.push(["toRefund", -toCome]);
  return stays === capturedAmount ? rows : [...rows, ["stays", stays]];
}

// The pause in milliseconds after this many unsuccessful confirmations; null for no further one. Giving up does no
// harm, because the provider's webhook confirms the payment too.
export function confirmPause(tries) {
  return CONFIRM_PAUSES_MS[tries - 1] ?? null;
}

// Whether the same request may succeed later: after a conflict, too many requests, or a server error.
export function mayPass(httpStatus) {
  return httpStatus === 409 || httpStatus === 429 || httpStatus >= 500;
}

function reachedBeforeEnd(session) {
  if (session.startedAt) return 2;
  return session.authorizedAt || isFree(session) ? 1 : 0;
}
