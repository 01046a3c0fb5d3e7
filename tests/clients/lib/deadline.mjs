// Waiting: nothing in this folder waits without a deadline and a name for what it waits for.

import { setTimeout as pause } from "node:timers/promises";

/** Milliseconds that any one step of a client may take on a busy two-core machine. */
export const STEP = 30_000;

const POLL_EVERY = 50;

/** Settles as `promise` does, or rejects once `ms` have passed. */
export async function within(ms, awaited, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${awaited}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks `probe` again and again until it answers with something truthy; for what sends no event. */
export async function until(ms, awaited, probe) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await within(ms, awaited, probe());
    if (answer) return answer;
    if (Date.now() >= end) throw new Error(`waited ${ms} ms for ${awaited}`);
    await pause(POLL_EVERY);
  }
}
