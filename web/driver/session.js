// The page of one session: /session/<reservation>. Confirms the payment, follows the charge, shows the bill.

import { FINAL, api, applyTexts, clock, duration, element, energy } from "./common.js";
import { money, poll, say, serverNow, show, webAddress } from "./common.js";
import { has, text } from "./texts.js";

const REFRESH_MS = 2000;
const STEPS = ["paid", "starting", "charging", "finished"];
const REACHED = {
  PendingPayment: 0,
  Authorized: 1,
  StartRequested: 1,
  Charging: 2,
  WaitingForDisconnect: 3,
  Completed: 4,
};
const CANCELLABLE = new Set(["PendingPayment", "Authorized", "StartRequested"]);
const MONEY_AT_REST = new Set(["none", "captured", "released", "needs_review"]);

const reservation = decodeURIComponent(location.pathname.split("/")[2]);
const checkout = new URLSearchParams(location.search).get("checkout");

let latest = null;
let confirmed = checkout !== "done";
let cancelling = false;

function headlineKey(session) {
  if (session.status === "PendingPayment" && checkout === "done") return "Confirming";
  if (session.status === "PendingPayment" && checkout === "cancelled") return "NotPaid";
  if (session.status === "Failed" && session.startedAt) return "Stopped";
  return session.status;
}

function hintText(session, headline) {
  if (session.status === "Failed" || session.status === "Cancelled") {
    return text(has(`failure.${session.failureCode}`) ? `failure.${session.failureCode}` : "failure.other");
  }
  const until = session.status === "PendingPayment" ? session.expiresAt : session.startDeadline;
  const key = headline === "StartRequested" && !until ? "hint.Authorized" : `hint.${headline}`;
  if (!has(key) || (headline === "PendingPayment" && !until)) return "";
  return text(key, { until: until && clock(until) });
}

function moneyText(session) {
  if (session.money === "released") return text("money.releasedAll");
  if (session.money === "none" && !FINAL.has(session.status)) return "";
  return has(`money.${session.money}`) ? text(`money.${session.money}`) : "";
}

// How far a session that ended without success had come.
function reachedBeforeEnd(session) {
  if (session.startedAt) return 2;
  return session.authorizedAt ? 1 : 0;
}

function progress(session) {
  const ended = session.status === "Cancelled" || session.status === "Failed";
  const reached = ended ? reachedBeforeEnd(session) : REACHED[session.status];
  const began = { paid: session.authorizedAt, charging: session.startedAt, finished: session.stoppedAt };
  return STEPS.map((name, index) => {
    if (index > reached) return { name, state: "todo" };
    if (index < reached) return { name, state: "done", at: began[name] };
    return { name, state: ended ? "failed" : "current", at: began[name] };
  });
}

function renderSteps(session) {
  const marks = { done: "✓", failed: "✕", current: "•", todo: "" };
  const steps = progress(session);
  const drawn = JSON.stringify(steps);
  const list = element("steps");
  if (list.dataset.drawn === drawn) return;
  list.dataset.drawn = drawn;
  list.replaceChildren(
    ...steps.map(({ name, state, at }) => {
      const row = document.createElement("li");
      row.className = state;
      if (state === "current") row.setAttribute("aria-current", "step");
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.setAttribute("aria-hidden", "true");
      mark.textContent = marks[state];
      const label = document.createElement("span");
      label.textContent = text(`steps.${name}`);
      const spoken = document.createElement("span");
      spoken.className = "unseen";
      spoken.textContent = ` (${text(`steps.${state}`)})`;
      label.append(spoken);
      row.append(mark, label);
      if (at) {
        const time = document.createElement("time");
        time.dateTime = at;
        time.textContent = clock(at);
        row.append(time);
      }
      return row;
    }),
  );
}

function renderBill(session) {
  const rows = session.money === "none" ? [] : [["money.held", session.maxAmount]];
  if (session.capturedAmount !== undefined) {
    rows.push(["money.released", session.maxAmount - session.capturedAmount]);
    rows.push(["money.charged", session.capturedAmount]);
  } else if (session.money === "released") {
    rows.push(["money.released", session.maxAmount]);
  }
  element("bill").replaceChildren(
    ...rows.map(([label, amount]) => {
      const row = document.createElement("div");
      row.className = label === "money.charged" ? "total" : "";
      const term = document.createElement("dt");
      term.textContent = text(label);
      const value = document.createElement("dd");
      value.textContent = money(amount, session);
      row.append(term, value);
      return row;
    }),
  );
  say("money-note", moneyText(session));
  show("money", session.status !== "PendingPayment");
}

function renderTimer() {
  if (!latest?.startedAt) return;
  const end = latest.stoppedAt ? Date.parse(latest.stoppedAt) : serverNow();
  say("timer", duration(end - Date.parse(latest.startedAt)));
}

function render(session) {
  latest = session;
  const headline = headlineKey(session);
  say("headline", text(`headline.${headline}`));
  say("place", text("session.place", { station: session.chargePointId, connector: session.connectorId }));
  say("hint", hintText(session, headline));
  document.title = text("session.title", { headline: text(`headline.${headline}`), station: session.chargePointId });

  say("energy", energy(session.energyWh));
  say("cost", money(session.capturedAmount ?? session.amount, session));
  renderTimer();
  show("figures", Boolean(session.startedAt));
  renderSteps(session);
  show("progress", true);
  renderBill(session);

  const unpaid = session.status === "PendingPayment" && session.checkoutUrl && checkout !== "done";
  show("pay", Boolean(unpaid));
  if (unpaid) element("pay").href = webAddress(session.checkoutUrl);
  show("cancel", CANCELLABLE.has(session.status));
  show("again", session.status === "Failed" || session.status === "Cancelled");
  element("again").href = `/cp/${encodeURIComponent(session.chargePointId)}/${session.connectorId}`;
}

async function refresh() {
  if (cancelling) return true;
  try {
    if (!confirmed) {
      confirmed = true; // once: if it fails, the provider's own message to the back end does the same
      render(await api("POST", "/payments/confirm", { reservationId: reservation }));
    } else {
      render(await api("GET", `/payments/status/${encodeURIComponent(reservation)}`));
    }
    say("trouble", "");
  } catch (error) {
    say("trouble", error.sentence);
    if (error.status !== 404) return true;
    say("headline", text("headline.UnknownReservation"));
    return false;
  }
  return !(FINAL.has(latest.status) && MONEY_AT_REST.has(latest.money));
}

async function cancel() {
  cancelling = true;
  element("cancel").disabled = true;
  say("cancel", text("session.cancelling"));
  try {
    render(await api("POST", "/payments/cancel", { reservationId: reservation }));
    say("trouble", "");
  } catch (error) {
    say("trouble", error.status === 409 ? text("session.tooLate") : error.sentence);
  }
  cancelling = false;
  element("cancel").disabled = false;
  say("cancel", text("session.cancel"));
}

applyTexts();
say("headline", text(checkout === "done" ? "headline.Confirming" : "headline.Loading"));
element("cancel").addEventListener("click", cancel);
setInterval(renderTimer, 1000);
poll(refresh, REFRESH_MS);
