// The reservations this browser began, one per connector, so that a driver who comes back finds them.
// {"<station> <connector>": {reservationId, created}}, in local storage.

import { FINAL } from "./decisions.js";

const KEY = "sessions";
const KEPT_MS = 7 * 24 * 3600 * 1000;

// The notes in a text that are young enough; none if the text is not ours.
export function notesIn(text, now) {
  try {
    const notes = Object.entries(JSON.parse(text) ?? {});
    return Object.fromEntries(notes.filter(([, note]) => now - Date.parse(note.created) < KEPT_MS));
  } catch {
    return {}; // Somebody else wrote it: it is written anew with the next reservation.
  }
}

// The notes after what the API said of a reservation: none of one that ended, and one that moved to another connector
// is found there.
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
    return {}; // Storage is off in this browser: the driver still has the address of the session.
  }
}

function write(notes) {
  try {
    localStorage.setItem(KEY, JSON.stringify(notes));
  } catch {
    // As above.
  }
}
