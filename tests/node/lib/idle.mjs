// Uses a client and comes to its end without closing it.
import { Client } from 'sessiond';

const client = new Client({ socket: process.argv[2] });
await client.addItems('idle', ['{}']);
await client.getItems('idle');
console.log('done');
