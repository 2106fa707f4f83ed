#!/usr/bin/env node
// Sends a list of pulses, again and again until it is stored, with nothing but Node 18 or newer.
//
//   node examples/send.mjs [URL]        INGESTOR_API_KEY=ick_... if the ingestor asks for one
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

const url = process.argv[2] ?? 'http://127.0.0.1:8070/ingest';
const attempts = 8;

// The ingestor's answer. Each pulse must have a pulse_id: that makes repeating safe.
async function send(pulses) {
  const headers = { 'Content-Type': 'application/json' };
  if (process.env.INGESTOR_API_KEY) headers.Authorization = `Bearer ${process.env.INGESTOR_API_KEY}`;
  const body = JSON.stringify(pulses);
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    let seconds = Math.random() * Math.min(60, 2 ** attempt);
    try {
      const answer = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(15_000) });
      const text = await answer.text();
      if (answer.ok) return text;
      if (![408, 429, 500, 502, 503, 504].includes(answer.status)) {
        throw new RangeError(`refused for good: ${answer.status} ${text}`);
      }
      seconds = Math.max(seconds, Number(answer.headers.get('Retry-After') ?? 0));
    } catch (error) {
      // Anything else is no answer: stored or not, the ids tell.
      if (error instanceof RangeError) throw error;
    }
    await pause(seconds * 1000);
  }
  throw new Error('not stored yet: keep the pulses, and send them again later');
}

// Amounts as text keep every digit. A real client keeps the ids with its readings.
console.log(await send([
  { tenant_id: 'acme', product_sku: 'disk', used_amount: '0.1', use_unit: 'GB', pulse_id: randomUUID() },
  { tenant_id: 'acme', product_sku: 'link', used_amount: '20', use_unit: 'MB/sec', pulse_id: randomUUID() },
]));
