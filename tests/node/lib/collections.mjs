// Reads one history of 50 KB again and again, fifty readings at a time. Prints how many collections there were: of what is
// new, and full ones.
import { PerformanceObserver, constants } from 'node:perf_hooks';

import { Client } from 'sessiond';

const client = new Client({ socket: process.argv[2] });
const counts = { minor: 0, full: 0 };
const observer = new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries()) {
    if (detail.kind === constants.NODE_PERFORMANCE_GC_MINOR) counts.minor++;
    if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) counts.full++;
  }
});

await client.addItems('collected', Array.from({ length: 100 }, (_, n) => JSON.stringify({ n, pad: 'x'.repeat(490) })));
observer.observe({ entryTypes: ['gc'] });
await Promise.all(Array.from({ length: 50 }, async () => {
  for (let n = 0; n < 200; n++) await client.getItems('collected');
}));
setTimeout(() => console.log(JSON.stringify(counts)), 10);
