// src/app/api/cron/backup/route.ts: hands Vercel's call on to the console, which begins the backup and answers at once.
//
// A function on Vercel has no pg_dump, no disk and minutes to live: the backup itself is made where the workers run.
// Variables of the project: CRON_SECRET, which Vercel sends along and the console knows too, and LARDER_CONSOLE_URL, as
// https://larder.example.com. Called twice for one slot of the schedule, the console begins one backup.

import { createHash, timingSafeEqual } from 'node:crypto';

const digest = (text: string) => createHash('sha256').update(text).digest();

export async function GET(request: Request): Promise<Response> {
  const { CRON_SECRET: secret, LARDER_CONSOLE_URL: larder } = process.env;
  if (!secret || !larder) {
    return Response.json({ error: 'CRON_SECRET or LARDER_CONSOLE_URL is not set' }, { status: 503 });
  }
  const given = request.headers.get('authorization') ?? '';
  if (!timingSafeEqual(digest(given), digest(`Bearer ${secret}`))) {
    return Response.json({ error: 'unauthorized' }, { status: 401 });
  }
  try {
    const answer = await fetch(new URL('/api/cron/backup', larder), {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}` },
      redirect: 'error',
      signal: AbortSignal.timeout(20_000),
    });
    return Response.json(await answer.json(), { status: answer.status });
  } catch {
    return Response.json({ error: 'Larder does not answer' }, { status: 502 });
  }
}
