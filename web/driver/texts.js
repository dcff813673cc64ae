// What the pages say by themselves; {name} is filled in by text(). Why a connector is busy is said by the API.

export const TEXTS = {
  "start.connector": "Connector {connector}",
  "start.station": "Station {station}",
  "start.title": "Charge at {station}, connector {connector}",
  "start.button": "Start charging",
  "start.busy": "Opening the payment page…",
  "start.busyFree": "Starting…",
  "start.how": "Plug in, start, pay. The charge begins as soon as your payment is confirmed.",
  "start.howFree": "Plug in and start. There is nothing to pay.",

  "resume.button": "Continue payment",
  "resume.restart": "Cancel and start again",
  "resume.follow": "Go to your session",
  "resume.unpaid": "You have not finished your payment. The connector is kept for you until {until}.",
  "resume.running": "This connector is yours: your session is open.",

  "price.title": "Price",
  "price.energy": "Energy",
  "price.perKwh": "{price} per kWh",
  "price.fee": "Session fee",
  "price.idle": "Idle fee",
  "price.perMinute": "{price} per minute",
  "price.idleFrom": "When your car is full, until you unplug.",
  "price.idleGrace": "The first {grace} are free.",
  "price.idleWindow": "Free from {from} to {until}.",
  "price.idleMaximum": "At most {maximum}.",
  "price.hold": "Hold on your card",
  "price.free": "Free of charge",
  "price.covers": "You only pay for what you use; the rest is released. The hold covers up to {energy}.",
  "price.coversIdle":
    "You only pay for what you use; the rest is released. The hold covers up to {energy} and the idle fee.",
  "price.minimum": "Nothing is charged below {minimum}.",
  "price.vat": "Prices include {vat} VAT.",

  "badge.Ready": "Ready",
  "badge.Available": "Available",
  "badge.Occupied": "In use",
  "badge.Reserved": "Reserved",
  "badge.Unavailable": "Out of service",
  "badge.Faulted": "Faulty",
  "badge.Offline": "Offline",
  "badge.Unknown": "Unknown",

  "error.UnknownStation": "There is no such charging station. Please check the address on the sticker.",
  "error.UnknownConnector": "This station has no such connector. Please check the address on the sticker.",
  "error.UnknownReservation": "There is no such session. Please check the address.",
  "error.PaymentProviderUnavailable":
    "The payment service does not answer. Nothing was charged. Please try again in a moment.",
  "error.BadRequest": "This address is not complete. Please check it.",
  "error.Network": "No connection. Trying again…",
  "error.other": "Something went wrong. Nothing more was charged. Please try again in a moment.",

  "session.title": "{headline} · {station}",
  "session.place": "Station {station}, connector {connector}",
  "session.pay": "Go to payment",
  "session.cancel": "Cancel",
  "session.cancelling": "Cancelling…",
  "session.again": "Start again",
  "session.tooLate": "It is too late to cancel: the charge has begun.",
  "session.moved": "You plugged in at connector {connector}: your session moved there.",
  "session.timeLeft": "Time left to start: {left}",
  "session.late":
    "Confirming your payment takes a little longer. You need not do anything: this page goes on by itself.",
  "session.unheard":
    "We have not heard of your payment yet. If you have paid, this page goes on by itself. If not, cancel and start " +
    "again.",

  "headline.Loading": "One moment…",
  "headline.UnknownReservation": "Session not found",
  "headline.PendingPayment": "Waiting for payment",
  "headline.Confirming": "Confirming payment…",
  "headline.NotPaid": "Not paid yet",
  "headline.Authorized": "Payment confirmed",
  "headline.Reserved": "Reserved for you",
  "headline.StartRequested": "Starting…",
  "headline.Charging": "Charging",
  "headline.WaitingForDisconnect": "Charging finished",
  "headline.Completed": "All done",
  "headline.Cancelled": "Cancelled",
  "headline.Failed": "The charge did not start",
  "headline.Stopped": "The charge ended early",

  "hint.PendingPayment": "The connector is kept for you until {until}.",
  "hint.NotPaid": "The payment was not completed. Go back to it, or cancel to free the connector.",
  "hint.Authorized": "The charge starts by itself.",
  "hint.Reserved": "The charge starts by itself.",
  "hint.StartRequested": "Please plug in your car, if you have not yet.",
  "hint.Charging": "To stop, end the charge in your car and take the cable out.",
  "hint.WaitingForDisconnect": "Please take the cable out of your car.",
  "hint.Completed": "Thank you. You can close this page.",

  "steps.title": "Progress",
  "steps.paid": "Payment",
  "steps.starting": "Starting",
  "steps.charging": "Charging",
  "steps.finished": "Finished",
  "steps.done": "done",
  "steps.current": "now",
  "steps.todo": "to come",
  "steps.failed": "failed",

  "figures.title": "So far",
  "figures.energy": "Energy",
  "figures.power": "Power",
  "figures.time": "Time",
  "figures.cost": "Cost",

  "money.title": "Payment",
  "money.held": "Held on your card",
  "money.charged": "Charged",
  "money.released": "Released",
  "money.none": "Your card was not charged.",
  "money.authorised": "You only pay for what you use; the rest is released.",
  "money.capturing": "The final amount is being charged.",
  "money.captured": "Your bank shows the released part after a short while.",
  "money.releasing": "Your card is not charged. The hold is being released.",
  "money.releasedAll": "Your card was not charged. The hold was released.",
  "money.needs_review": "We are checking this payment by hand. You need not do anything.",

  "failure.CancelledByDriver": "You cancelled this session.",
  "failure.CancelledByOperator": "The operator of the station cancelled this session.",
  "failure.CheckoutFailed": "The payment page could not be opened. Please try again in a moment.",
  "failure.ConnectorTaken": "The connector was taken before your payment was complete.",
  "failure.PaymentFailed": "The payment did not go through.",
  "failure.PaymentTimeout": "The payment was not completed in time.",
  "failure.StartRejected": "The station refused to start. Please check the cable and try again.",
  "failure.StartTimeout": "The car did not begin to charge in time. Was the cable plugged in?",
  "failure.other": "The session could not go on.",
};

export function text(key, values = {}) {
  return TEXTS[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function has(key) {
  return Object.hasOwn(TEXTS, key);
}
