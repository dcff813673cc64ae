// The page on the sticker: /cp/<station>/<connector>. Shows state and price, and opens the checkout.

import { FINAL, api, applyTexts, element, energy, memory } from "./common.js";
import { money, poll, reasonText, say, show, webAddress } from "./common.js";
import { text } from "./texts.js";

const REFRESH_MS = 5000;
const [station, connector] = location.pathname.split("/").slice(2, 4).map(decodeURIComponent);
const address = `/payments/connectors/${encodeURIComponent(station)}/${encodeURIComponent(connector)}`;

let opening = false;
let refusal = null;

function badge(state) {
  if (state.startable) return ["ready", "Ready"];
  if (state.reason === "ActiveReservation" && state.status === "Available") return ["busy", "Reserved"];
  if (state.status === "Available") return ["busy", "Unknown"];
  if (state.status === "Occupied") return ["busy", "Occupied"];
  return ["out", state.status];
}

function render(state) {
  const [kind, name] = badge(state);
  const tariff = state.tariff;
  element("badge").dataset.kind = kind;
  say("badge", text(`badge.${name}`));
  say("per-kwh", text("price.perKwh", { price: money(tariff.pricePerKwh, tariff, 2) }));
  say("fee", money(tariff.sessionFee, tariff));
  say("hold", money(tariff.maxAmount, tariff));
  say("hold-note", text("price.note", { energy: energy(tariff.maxEnergyWh, 0) }));
  show("price", true);
  say("reason", state.startable ? (refusal ?? "") : reasonText(state.reason));
  element("start").disabled = opening || !state.startable;
}

async function offerToResume() {
  const reservation = memory.find(station, connector);
  if (!reservation) return;
  try {
    const session = await api("GET", `/payments/status/${encodeURIComponent(reservation)}`);
    element("resume").href = `/session/${encodeURIComponent(reservation)}`;
    show("resume", !FINAL.has(session.status));
    if (FINAL.has(session.status)) memory.forget(station, connector);
  } catch (error) {
    show("resume", false);
    if (error.status === 404) memory.forget(station, connector);
  }
}

async function refresh() {
  try {
    render(await api("GET", address));
  } catch (error) {
    say("reason", error.sentence);
    element("start").disabled = true;
    return error.status !== 404;
  }
  return offerToResume();
}

async function start() {
  opening = true;
  refusal = null;
  element("start").disabled = true;
  say("start", text("start.busy"));
  try {
    const checkout = await api("POST", "/payments/create", { chargePointId: station, connectorId: Number(connector) });
    memory.keep(station, connector, checkout.reservationId);
    location.assign(webAddress(checkout.checkoutUrl));
    return;
  } catch (error) {
    refusal = error.sentence;
    say("reason", refusal);
  }
  reset();
  await refresh();
}

function reset() {
  opening = false;
  say("start", text("start.button"));
}

applyTexts();
say("connector", text("start.connector", { connector }));
say("station", text("start.station", { station }));
document.title = text("start.title", { station, connector });
element("start").addEventListener("click", start);
window.addEventListener("pageshow", (event) => event.persisted && reset());
poll(refresh, REFRESH_MS);
