// A real daemon in a directory of its own, for the tests of one file.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Client } from 'sessiond';

export const top = fileURLToPath(new URL('../../../', import.meta.url));
export const build = process.env.SESSIOND_BUILD ?? path.join(top, 'build/release');
export const register = path.join(top, 'tests/node/lib/register.mjs');
export const python = path.join(top, 'build/venv/bin/python');

const WAIT_MS = 60_000;

/** Waits until it holds; fails, naming it, if it does not. */
export async function until(what, holds) {
  for (const end = Date.now() + WAIT_MS; !(await holds()); await pause(5))
    if (Date.now() > end) throw new Error(`waited in vain for: ${what}`);
}

export class Daemon {
  #process;

  constructor(...settings) {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'sd-'));
    this.socket = path.join(this.directory, 's');
    this.settings = settings;
  }

  async start() {
    const log = fs.openSync(path.join(this.directory, 'log'), 'a');
    const args = ['--socket', this.socket, '--state-dir', path.join(this.directory, 'state'), ...this.settings];
    this.#process = spawn(path.join(build, 'sessiond'), args, { stdio: ['ignore', log, log] });
    fs.closeSync(log);
    const client = new Client({ socket: this.socket });
    await until('the daemon to answer', () => client.ping().then(() => true, () => false));
    await client.close();
    return this;
  }

  get pid() {
    return this.#process.pid;
  }

  async kill() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
  }

  async restart() {
    await this.kill();
    await this.start();
  }

  async remove() {
    if (this.#process?.exitCode === null && this.#process.signalCode === null) await this.kill();
    fs.rmSync(this.directory, { recursive: true });
  }
}

/** Runs a program to its end. Returns its output; throws with what it said if it failed. */
export async function output(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => (said[name] += text));
  const [status, signal] = await once(child, 'close');
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: status ${status ?? signal}\n${said.stdout}${said.stderr}`);
  return said.stdout;
}

/** Runs a script of this tree in a Node of its own. */
export function node(script, args = [], options = {}) {
  return output(options.node ?? process.execPath, ['--import', register, script, ...args], options);
}
