// Items as JSON: what can be stored is checked, what is stored is read without losing a digit, and two values are told
// apart by what they say and not by how they are written.

import { SessiondError } from './errors.js';

/** Throws a TypeError that says where, if JSON cannot hold the value as it is. What is undefined in an object is absent. */
export function checkJson(value, where, above = new Set()) {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return;
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`${where} is ${value}, which JSON does not have`);
      if (Number.isInteger(value) && !Number.isSafeInteger(value))
        throw new TypeError(`${where} is ${value}, an integer over 2^53: its last digits are lost already`);
      return;
    case 'object':
      if (value !== null) checkContainer(value, where, above);
      return;
    default:
      throw new TypeError(`${where} is of type ${typeof value}, which JSON does not have`);
  }
}

function checkContainer(value, where, above) {
  if (above.has(value)) throw new TypeError(`${where} contains itself`);
  above.add(value);
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) checkJson(value[index], `${where}[${index}]`, above);
  } else {
    const prototype = Object.getPrototypeOf(value);
    if ((prototype !== null && Object.getPrototypeOf(prototype) !== null) || typeof value.toJSON === 'function')
      throw new TypeError(`${where} is a ${value.constructor?.name ?? 'special object'}, which JSON does not have`);
    for (const [name, member] of Object.entries(value)) if (member !== undefined) checkJson(member, `${where}.${name}`, above);
  }
  above.delete(value);
}

const LONG_NUMBER = /[0-9]{16}/;
const STRINGS = /"(?:[^"\\]|\\.)*"/g;
const INTEGERS = /-?\d{16,}(?![\d.eE])/g;

/** A stored text as a value. An integer that JavaScript would round is refused, not rounded. */
export function parseItem(text, index) {
  if (LONG_NUMBER.test(text))
    for (const [digits] of text.replace(STRINGS, '""').matchAll(INTEGERS))
      if (!Number.isSafeInteger(Number(digits)))
        throw new SessiondError('unreadable', `item ${index}: JavaScript would round the integer ${digits}`, { details: { item: index, text } });
  return JSON.parse(text);
}

/** A copy without what is undefined. */
export function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const copy = {};
  for (const [name, member] of Object.entries(value)) if (member !== undefined) set(copy, name, plain(member));
  return copy;
}

/** As an own member, whatever its name. */
function set(object, name, value) {
  if (name === '__proto__') Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  else object[name] = value;
}

/** The same text for values that say the same. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const names = Object.keys(value).filter((name) => value[name] !== undefined).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(',')}}`;
}

// ---- differences ----
//
// What makes one value another: {"=": value} in its place; {".": {name: difference}, "-": [names]} inside an object;
// {"#": {index: difference}} inside an array of the same length. A long text that is somewhere in the first value already is
// not written again: {"=": …, "@": [[where in the new value, where in the first value], …]}, each a list of names.

const LONG_TEXT = 64;

/** Returns undefined where the values are the same. */
export function difference(from, to) {
  const d = differenceInside(from, to);
  if (d) referring(d, longTexts(from));
  return d;
}

function differenceInside(from, to) {
  if (isObject(from) && isObject(to)) return objectDifference(from, to);
  if (Array.isArray(from) && Array.isArray(to) && from.length === to.length) {
    const inside = to.map((value, index) => [index, differenceInside(from[index], value)]).filter(([, d]) => d);
    return inside.length ? { '#': Object.fromEntries(inside) } : undefined;
  }
  return canonical(from) === canonical(to) ? undefined : { '=': to };
}

function objectDifference(from, to) {
  const inside = {};
  for (const [name, value] of Object.entries(to)) {
    const d = Object.hasOwn(from, name) ? differenceInside(from[name], value) : { '=': value };
    if (d) set(inside, name, d);
  }
  const gone = Object.keys(from).filter((name) => !Object.hasOwn(to, name));
  const result = {};
  if (Object.keys(inside).length) result['.'] = inside;
  if (gone.length) result['-'] = gone;
  return Object.keys(result).length ? result : undefined;
}

/** Calls back for each long text in a value, with the names that lead to it. */
function eachLongText(value, found, path = []) {
  if (typeof value === 'string' && value.length >= LONG_TEXT) found(value, path);
  else if (typeof value === 'object' && value !== null)
    for (const [name, member] of Object.entries(value)) eachLongText(member, found, [...path, name]);
}

function longTexts(value) {
  const paths = new Map();
  eachLongText(value, (text, path) => paths.set(text, path));
  return paths;
}

/** Puts references in the place of long texts. The values of a difference are copied before, since they are not ours. */
function referring(d, paths) {
  for (const inside of Object.values(d['.'] ?? d['#'] ?? {})) referring(inside, paths);
  if (!('=' in d) || paths.size === 0) return;
  const references = [];
  eachLongText(d['='], (text, path) => paths.has(text) && references.push([path, paths.get(text)]));
  if (references.length === 0) return;
  d['='] = references.reduce((value, [path]) => withMember(value, path, null), d['=']);
  d['@'] = references;
}

/** A copy of the value with another member at the end of the path. */
function withMember(value, path, member) {
  if (path.length === 0) return member;
  const [name, ...rest] = path;
  const copy = Array.isArray(value) ? [...value] : { ...value };
  set(copy, name, withMember(value[name], rest, member));
  return copy;
}

export function applied(value, d, whole = value) {
  if ('=' in d) {
    const found = (path) => path.reduce((inside, name) => inside?.[name], whole);
    return (d['@'] ?? []).reduce((result, [path, from]) => withMember(result, path, found(from)), d['=']);
  }
  if ('#' in d) {
    const copy = [...value];
    for (const [index, inside] of Object.entries(d['#'])) copy[index] = applied(copy[index], inside, whole);
    return copy;
  }
  const copy = { ...value };
  for (const name of d['-'] ?? []) delete copy[name];
  for (const [name, inside] of Object.entries(d['.'] ?? {})) set(copy, name, applied(copy[name], inside, whole));
  return copy;
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
