// The page of a receipt: /receipt/<reservation>.

import { lines, payments, sums } from "./account.js";
import { api, applyTexts, element, say, sayAll, show } from "./common.js";
import { dateTime } from "./format.js";
import { text } from "./texts.js";

const reservation = decodeURIComponent(location.pathname.split("/")[2]);

function cell(tag, className, content) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

function rows(id, drawn) {
  element(id).replaceChildren(
    ...drawn.map(({ name, detail, amount, total }) => {
      const row = document.createElement("div");
      row.className = total ? "total" : "";
      const term = cell("dt", "", name);
      if (detail) term.append(cell("small", "", detail));
      row.append(term, cell("dd", "", amount));
      return row;
    }),
  );
}

function renderOperator({ name, address, vatNumber, contact }) {
  const number = vatNumber && text("receipt.vatNumber", { number: vatNumber });
  const said = [name, ...(address ?? "").split("\n"), number, contact].filter(Boolean);
  sayAll("operator", said);
  show("operator", said.length > 0);
}

function renderSession(receipt) {
  const { chargePointId: station, connectorId: connector, timeZone } = receipt;
  const times = [["started", "startedAt"], ["stopped", "stoppedAt"], ["issued", "issuedAt"]];
  rows("session", [
    { name: text("receipt.station"), amount: text("receipt.connector", { station, connector }) },
    ...times
      .filter(([, field]) => receipt[field])
      .map(([name, field]) => ({ name: text(`receipt.${name}`), amount: dateTime(receipt[field], timeZone) })),
  ]);
  say("zone", text("receipt.zone", { zone: timeZone }));
}

function render(receipt) {
  const title = text("receipt.title", { number: receipt.number });
  say("headline", title);
  document.title = title;
  renderOperator(receipt.operator);
  renderSession(receipt);
  rows("lines", [...lines(receipt), ...sums(receipt)]);
  rows("payment", payments(receipt));
  show("receipt", true);
  show("print", true);
}

async function load() {
  try {
    render(await api("GET", `/payments/receipt/${encodeURIComponent(reservation)}`));
  } catch (error) {
    say("trouble", error.sentence);
  }
}

applyTexts();
say("headline", text("receipt.loading"));
element("back").href = `/session/${encodeURIComponent(reservation)}`;
element("print").addEventListener("click", () => window.print());
load();
