// The page of one session: /session/<reservation>. Confirms the payment, shows the progress, then the bill.

import { api, applyTexts, element, poll, say, sayAll, serverNow, show, webAddress } from "./common.js";
import { FINAL, REFRESH_MS, bill, confirmPause, figures, hasMoved, headline, idleNotice } from "./decisions.js";
import { isCancellable, isFree, isSettled, mayPass, mustStart, paidTooLate, progress, refreshPause } from "./decisions.js";
import { keptElsewhere, offers, reviewed, waits, willBeChecked } from "./decisions.js";
import { clock, countdown, duration, energy, money, power } from "./format.js";
import { memory } from "./memory.js";
import { has, text } from "./texts.js";

const reservation = decodeURIComponent(location.pathname.split("/")[2]);
const checkout = new URLSearchParams(location.search).get("checkout");

let latest = null;
let confirmations = 0;
let nextConfirmation = checkout === "done" ? 0 : null;
let acting = false;
let refusal = "";

function hint(session, name) {
  if (paidTooLate(session)) return text("failure.paidTooLate");
  if (session.status === "Failed" || session.status === "Cancelled") {
    return text(has(`failure.${session.failureCode}`) ? `failure.${session.failureCode}` : "failure.other");
  }
  if (!has(`hint.${name}`) || (name === "PendingPayment" && !session.expiresAt)) return "";
  return text(`hint.${name}`, { until: session.expiresAt && clock(session.expiresAt) });
}

function notices(session) {
  const sentences = hasMoved(session) ? [text("session.moved", { connector: session.connectorId })] : [];
  if (willBeChecked(session)) sentences.push(text("hint.Checking"));
  sentences.push(...offers(session).map((connector) => text("session.plugged", { connector })));
  sentences.push(...keptElsewhere(session).map((connector) => text("session.kept", { connector })));
  if (session.status === "PendingPayment" && confirmations > 0) {
    sentences.push(text(nextConfirmation === null ? "session.unheard" : "session.late"));
  }
  return [...sentences, ...idleSentences(session), ...waits(session)];
}

function idleSentences(session) {
  const key = idleNotice(session, serverNow());
  if (key === null) return [];
  const { idle, tariff } = session;
  const begins = idle.feeBeginsAt && clock(idle.feeBeginsAt);
  return [text(key, { begins, fee: money(idle.fee, session), price: money(tariff.idlePricePerMinute, tariff, 2) })];
}

function moneyNote(session) {
  const cut = session.cut ? [text("money.cut", { cut: money(-session.cut, session) })] : [];
  return [...cut, moneySentence(session)].join(" ");
}

function moneySentence(session) {
  if (session.money === "needs_review") {
    return text(`money.review.${reviewed(session)}`, { amount: money(session.amount, session) });
  }
  if (session.heldUntil) return text("money.unheard", { until: clock(session.heldUntil) });
  if (session.money === "released") return text("money.releasedAll");
  if (session.money === "captured" && session.refundedAmount) return text("money.refundedPart");
  if (session.money === "captured" && session.capturedAmount === session.maxAmount) return "";
  if (session.money === "none" && !FINAL.has(session.status)) return "";
  return has(`money.${session.money}`) ? text(`money.${session.money}`) : "";
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
  const rows = bill(session);
  element("bill").replaceChildren(
    ...rows.map(([name, amount], index) => {
      const row = document.createElement("div");
      row.className = session.capturedAmount !== undefined && index === rows.length - 1 ? "total" : "";
      const term = document.createElement("dt");
      term.textContent = text(`money.${name}`);
      const value = document.createElement("dd");
      value.textContent = money(amount, session);
      row.append(term, value);
      return row;
    }),
  );
  say("money-note", moneyNote(session));
  show("money", session.status !== "PendingPayment" && !isFree(session));
}

function renderFigures(session) {
  const known = figures(session);
  say("energy", energy(session.energyWh));
  if (known.power) say("power", power(session.powerW));
  say("cost", money(session.amount, session));
  for (const [name, shown] of Object.entries(known)) show(`${name}-figure`, shown);
  element("figures").dataset.count = 1 + Object.values(known).filter(Boolean).length;
  show("figures", Boolean(session.startedAt));
}

// A button for each connector at which the driver can continue. Buttons that are there already stay, so that a tap is
// not lost to a refresh.
function renderOffers(session) {
  const numbers = offers(session);
  const drawn = JSON.stringify(numbers);
  const list = element("offers");
  if (list.dataset.drawn === drawn) return;
  list.dataset.drawn = drawn;
  list.replaceChildren(
    ...numbers.map((connector) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button";
      button.textContent = text("session.continue", { connector });
      button.addEventListener("click", () => move(button, connector));
      return button;
    }),
  );
}

// Updates the countdown and the timer, also between two answers.
function renderTimes() {
  if (latest === null) return;
  show("countdown", mustStart(latest));
  if (mustStart(latest)) {
    say("countdown", text("session.timeLeft", { left: countdown(latest.startDeadline, serverNow()) }));
  }
  if (!latest.startedAt) return;
  const end = latest.stoppedAt ? Date.parse(latest.stoppedAt) : serverNow();
  say("timer", duration(end - Date.parse(latest.startedAt)));
}

function render(session) {
  latest = session;
  memory.follow(session);
  const name = headline(session, checkout);
  say("headline", text(`headline.${name}`));
  say("place", text("session.place", { station: session.chargePointId, connector: session.connectorId }));
  say("hint", hint(session, name));
  sayAll("notices", notices(session));
  document.title = text("session.title", { headline: text(`headline.${name}`), station: session.chargePointId });

  renderOffers(session);
  renderTimes();
  renderFigures(session);
  renderSteps(session);
  show("progress", true);
  renderBill(session);

  const unpaid = session.status === "PendingPayment" && session.checkoutUrl && checkout !== "done";
  show("pay", Boolean(unpaid));
  if (unpaid) element("pay").href = webAddress(session.checkoutUrl);
  show("cancel", isCancellable(session));
  show("receipt", Boolean(session.receiptUrl));
  if (session.receiptUrl) element("receipt").href = webAddress(session.receiptUrl);
  show("again", session.status === "Failed" || session.status === "Cancelled");
  element("again").href = `/cp/${encodeURIComponent(session.chargePointId)}/${session.connectorId}`;
}

// Asks the API to look the payment up, a few times with growing pauses. A request that the API did not answer is not
// counted.
async function confirm() {
  let answer = null;
  try {
    answer = await api("POST", "/payments/confirm", { reservationId: reservation });
  } catch (error) {
    if (!mayPass(error.status)) throw error;
  }
  if (answer !== null && answer.status !== "PendingPayment") {
    nextConfirmation = null;
    return;
  }
  confirmations += 1;
  const pause = confirmPause(confirmations);
  nextConfirmation = pause === null ? null : Date.now() + pause;
}

async function refresh() {
  if (acting) return REFRESH_MS;
  try {
    if (nextConfirmation !== null && nextConfirmation <= Date.now()) await confirm();
    const session = await api("GET", `/payments/status/${encodeURIComponent(reservation)}`);
    if (session.status !== latest?.status) refusal = "";
    render(session);
    say("trouble", refusal);
  } catch (error) {
    say("trouble", error.sentence);
    if (error.status !== 404 && error.status !== 400) return REFRESH_MS;
    say("headline", text("headline.UnknownReservation"));
    return null;
  }
  return isSettled(latest) ? null : refreshPause(latest);
}

// Posts what the driver asks for, and shows its result or why it is refused.
async function act(path, body, explain) {
  acting = true;
  try {
    render(await api("POST", path, { reservationId: reservation, ...body }));
    refusal = "";
  } catch (error) {
    refusal = explain(error);
  }
  say("trouble", refusal);
  acting = false;
}

async function cancel() {
  element("cancel").disabled = true;
  say("cancel", text("session.cancelling"));
  await act("/payments/cancel", {}, (error) =>
    error.code === "IllegalTransition" ? text("session.tooLate") : error.sentence,
  );
  element("cancel").disabled = false;
  say("cancel", text("session.cancel"));
}

async function move(button, connector) {
  button.disabled = true;
  button.textContent = text("session.continuing");
  await act("/payments/move", { connectorId: connector }, (error) => error.sentence);
  button.disabled = false;
  button.textContent = text("session.continue", { connector });
}

applyTexts();
say("headline", text(checkout === "done" ? "headline.Confirming" : "headline.Loading"));
element("cancel").addEventListener("click", cancel);
setInterval(renderTimes, 1000);
poll(refresh);
