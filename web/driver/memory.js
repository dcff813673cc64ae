// The reservations that this browser began, one per connector, so that a returning driver finds them.
// In local storage as {"<station> <connector>": {reservationId, created}}.

import { FINAL } from "./decisions.js";

const KEY = "sessions";
const KEPT_MS = 7 * 24 * 3600 * 1000;

// The notes in a stored text that are not older than seven days; none if the text is unreadable.
export function notesIn(text, now) {
  try {
    const notes = Object.entries(JSON.parse(text) ?? {});
    return Object.fromEntries(notes.filter(([, note]) => now - Date.parse(note.created) < KEPT_MS));
  } catch {
    return {}; // Not written by these pages; the next reservation overwrites it.
  }
}

// The notes updated with the API's answer about a reservation: an ended one is removed, and a moved one is noted at its
// new connector.
export function following(notes, session) {
  const mine = Object.values(notes).find((note) => note.reservationId === session.reservationId);
  if (!mine) return notes;
  const others = Object.fromEntries(Object.entries(notes).filter(([, note]) => note !== mine));
  if (FINAL.has(session.status)) return others;
  return { ...others, [place(session.chargePointId, session.connectorId)]: mine };
}

export const memory = {
  find(station, connector) {
    return read()[place(station, connector)]?.reservationId ?? null;
  },
  keep(station, connector, reservationId) {
    write({ ...read(), [place(station, connector)]: { reservationId, created: new Date().toISOString() } });
  },
  forget(station, connector) {
    const { [place(station, connector)]: _, ...others } = read();
    write(others);
  },
  follow(session) {
    write(following(read(), session));
  },
};

function place(station, connector) {
  return `${station.toLowerCase()} ${connector}`;
}

function read() {
  try {
    return notesIn(localStorage.getItem(KEY), Date.now());
  } catch {
    return {}; // Local storage is disabled; the driver still has the session's address.
  }
}

function write(notes) {
  try {
    localStorage.setItem(KEY, JSON.stringify(notes));
  } catch {
    // Local storage is disabled or full; the driver still has the session's address.
  }
}
