// A receipt's lines and sums as text. Pure: no DOM, no clock.

import { exactEnergy, minutes, money, percent } from "./format.js";
import { has, text } from "./texts.js";

const BRANDS = { amex: "American Express", diners: "Diners Club", jcb: "JCB", unionpay: "UnionPay" };

// The receipt's lines, each with name, detail (may be empty) and amount.
export function lines(receipt) {
  return receipt.lines.map((line) => ({
    name: text(has(`receipt.${line.kind}`) ? `receipt.${line.kind}` : "receipt.Adjustment"),
    detail: detail(line, receipt),
    amount: money(line.amount, receipt),
  }));
}

// The total, and the VAT that it includes.
export function sums(receipt) {
  const rows = [{ name: text("receipt.total"), amount: money(receipt.total, receipt), total: true }];
  if (!receipt.vat) return rows;
  const { net, percent: rate, amount } = receipt.vat;
  rows.push({ name: text("receipt.vat", { percent: percent(rate) }), amount: money(amount, receipt) });
  rows.push({ name: text("receipt.net"), amount: money(net, receipt) });
  return rows;
}

// What was charged to the card, and what was or will be refunded to it.
export function payments(receipt) {
  const { capturedAmount, refundedAmount, amountToRefund, card } = receipt;
  const rows = [{ name: text("receipt.charged"), detail: cardName(card), amount: money(capturedAmount, receipt) }];
  if (refundedAmount) rows.push({ name: text("receipt.refunded"), amount: money(-refundedAmount, receipt) });
  if (amountToRefund) rows.push({ name: text("receipt.toRefund"), amount: money(-amountToRefund, receipt) });
  return rows;
}

function detail(line, receipt) {
  switch (line.kind) {
    case "Energy":
      return text("receipt.EnergyDetail", {
        energy: exactEnergy(line.energyWh),
        price: money(line.pricePerKwh, receipt, 2),
      });
    case "IdleFee":
      return idleDetail(line, receipt);
    case "Limit":
      return text("receipt.LimitDetail", { held: money(receipt.authorizedAmount, receipt) });
    default:
      return "";
  }
}

function idleDetail(line, receipt) {
  const key = line.graceMinutes > 0 ? "receipt.IdleFeeDetailGrace" : "receipt.IdleFeeDetail";
  const values = {
    idle: minutes(Math.floor(line.idleSeconds / 60)),
    grace: minutes(line.graceMinutes),
    price: money(line.pricePerMinute, receipt, 2),
  };
  const most = text("receipt.most", { maximum: money(line.maximum, receipt) });
  return line.amount === line.maximum ? `${text(key, values)}, ${most}` : text(key, values);
}

function cardName(card) {
  if (!card?.last4) return "";
  const brand = card.brand ?? "card";
  const name = BRANDS[brand] ?? brand.charAt(0).toUpperCase() + brand.slice(1);
  return text("receipt.chargedTo", { card: name, last4: card.last4 });
}
