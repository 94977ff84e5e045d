// MessagePack-RPC: requests to bytes, bytes to messages. No sockets; an Outbox and an Inbox belong to one connection.
//
// Both are made here, and not by the library, since nearly all bytes are those of items: Buffer writes and reads long texts
// several times as fast. What requests and answers hardly ever have, such as numbers with a fraction, is the library's.

import { Decoder, Encoder } from '@msgpack/msgpack';

const encoder = new Encoder({ ignoreUndefined: true });
const decoder = new Decoder();

const ROOM_TO_STAY = 4 * 1024 * 1024; // bytes that an idle inbox, or outbox, may hold
const OUTBOX_BYTES = 64 * 1024; // that are asked for at once
const SHORT = 40; // characters of a text that are faster written one by one
const LONG = 65536; // characters of a text for which as much room as they may need would be too much
const UTF8_MOST = 3; // bytes for each of them
const HEAD_MOST = 5;
const UINT = { 1: 0xcc, 2: 0xcd, 4: 0xce, 8: 0xcf }; // by their bytes
const TEXT = { 1: 0xd9, 2: 0xda, 4: 0xdb };
const LIST = { 2: 0xdc, 4: 0xdd };
const MAP = { 2: 0xde, 4: 0xdf };

/** Requests on their way out, one behind the other. */
export class Outbox {
  #bytes = Buffer.alloc(0);
  #begin = 0; // of what was not taken
  #end = 0;

  /**
   * Appends the frame [0, msgid, method, [params]]; a parameter that is undefined is left out. Returns its size; a frame of
   * more than `most` bytes is not kept, and neither is one of which a part cannot be sent: that throws.
   */
  add(msgid, method, params, most = Infinity) {
    const before = this.#end - this.#begin;
    let kept = false;
    try {
      this.#value([0, msgid, method, params === null ? [] : [params]]);
      const size = this.#end - this.#begin - before;
      kept = size <= most;
      return size;
    } finally {
      if (!kept) this.#end = this.#begin + before;
    }
  }

  /** All that was added since it was asked last; it is not written over. */
  take() {
    const all = this.#bytes.subarray(this.#begin, this.#end);
    this.#begin = this.#end;
    if (this.#bytes.length > ROOM_TO_STAY) {
      this.#bytes = Buffer.alloc(0);
      this.#begin = this.#end = 0;
    }
    return all;
  }

  #value(value) {
    if (typeof value === 'string') this.#text(value);
    else if (Number.isSafeInteger(value) && value >= 0) this.#head(0, 0x80, UINT, value);
    else if (value === null || value === undefined) this.#byte(0xc0);
    else if (typeof value === 'boolean') this.#byte(value ? 0xc3 : 0xc2);
    else if (Array.isArray(value)) this.#list(value);
    else if (Object.getPrototypeOf(value) === Object.prototype) this.#map(value);
    else this.#raw(encoder.encode(value));
  }

  #text(text) {
    const { length } = text;
    if (length <= SHORT && this.#ascii(text)) return;
    if (!text.isWellFormed()) throw new TypeError('a text is a string of well-formed Unicode');
    const most = length < LONG ? UTF8_MOST * length : Buffer.byteLength(text);
    this.#room(HEAD_MOST + most);
    const begin = this.#end;
    const guess = begin + textHeadSize(length); // right for ASCII
    const size = this.#bytes.write(text, guess, most, 'utf8');
    const body = begin + textHeadSize(size);
    if (body !== guess) this.#bytes.copyWithin(body, guess, guess + size);
    this.#head(0xa0, 32, TEXT, size);
    this.#end = body + size;
  }

  /** Returns whether it was a short text of ASCII alone, and is written. */
  #ascii(text) {
    const { length } = text;
    this.#room(2 + length);
    const bytes = this.#bytes;
    let at = this.#end;
    if (length < 32) bytes[at++] = 0xa0 | length;
    else {
      bytes[at++] = TEXT[1];
      bytes[at++] = length;
    }
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      if (code > 0x7f) return false;
      bytes[at++] = code;
    }
    this.#end = at;
    return true;
  }

  #list(list) {
    this.#head(0x90, 16, LIST, list.length);
    for (const value of list) this.#value(value);
  }

  #map(map) {
    let length = 0;
    for (const name in map) if (map[name] !== undefined) length++;
    this.#head(0x80, 16, MAP, length);
    for (const name in map) {
      if (map[name] === undefined) continue;
      this.#text(name);
      this.#value(map[name]);
    }
  }

  /** A number or a length: in the first byte itself if it is less than `few`, else behind the byte that says its size. */
  #head(first, few, sizes, n) {
    if (n < few) this.#byte(first | n);
    else if (n <= 0xff && sizes[1]) this.#sized(sizes[1], n, 1);
    else if (n <= 0xffff) this.#sized(sizes[2], n, 2);
    else if (n <= 0xffffffff) this.#sized(sizes[4], n, 4);
    else {
      this.#sized(sizes[8], Math.floor(n / 2 ** 32), 4);
      this.#room(4);
      this.#end = this.#bytes.writeUInt32BE(n % 2 ** 32, this.#end);
    }
  }

  #sized(first, n, size) {
    this.#byte(first);
    this.#room(size);
    this.#end = this.#bytes.writeUIntBE(n, this.#end, size);
  }

  #byte(byte) {
    this.#room(1);
    this.#bytes[this.#end++] = byte;
  }

  #raw(bytes) {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Makes room for so many bytes more. */
  #room(size) {
    if (this.#end + size <= this.#bytes.length) return;
    const pending = this.#bytes.subarray(this.#begin, this.#end);
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(OUTBOX_BYTES, 2 * pending.length + size));
    this.#bytes.set(pending);
    this.#begin = 0;
    this.#end = pending.length;
  }
}

function textHeadSize(size) {
  if (size < 32) return 1;
  if (size <= 0xff) return 2;
  return size <= 0xffff ? 3 : 5;
}

// What follows each first byte of a value: how many bytes of head (the first one too), and how the head is read.
const FIXED = 0; // the head is all
const SIZED = 1; // the head's last `width` bytes say how many bytes follow, and `plus` more
const NESTED = 2; // they say how many values follow, `plus` for each

const HEADS = new Array(256);

function head(from, to, kind, width, plus) {
  for (let byte = from; byte <= to; byte++) HEADS[byte] = { kind, width, plus, size: 1 + width };
}

function fixed(byte, size) {
  HEADS[byte] = { kind: FIXED, width: 0, plus: 0, size };
}

head(0x00, 0xff, FIXED, 0, 0);
for (const [byte, width] of [[0xc4, 1], [0xc5, 2], [0xc6, 4], [0xd9, 1], [0xda, 2], [0xdb, 4]]) head(byte, byte, SIZED, width, 0);
for (const [byte, width] of [[0xc7, 1], [0xc8, 2], [0xc9, 4]]) head(byte, byte, SIZED, width, 1);
for (const [byte, width, each] of [[0xdc, 2, 1], [0xdd, 4, 1], [0xde, 2, 2], [0xdf, 4, 2]]) head(byte, byte, NESTED, width, each);
for (const [byte, size] of [[0xca, 5], [0xcb, 9], [0xcc, 2], [0xcd, 3], [0xce, 5], [0xcf, 9], [0xd0, 2], [0xd1, 3], [0xd2, 5],
  [0xd3, 9], [0xd4, 3], [0xd5, 4], [0xd6, 6], [0xd7, 10], [0xd8, 18]]) fixed(byte, size);

/** A message of which all bytes are there, as a value of its own: nothing in it is a view. */
class Reader {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
  }

  value() {
    const byte = this.bytes[this.at];
    if (byte >= 0xa0 && byte <= 0xbf) return this.text(1, byte & 0x1f);
    if (byte < 0x80) return this.bytes[this.at++];
    if (byte <= 0x8f) return this.map(1, byte & 0x0f);
    if (byte <= 0x9f) return this.list(1, byte & 0x0f);
    const { width, size } = HEADS[byte];
    const read = READS[byte];
    return read ? read(this, size, width && this.bytes.readUIntBE(this.at + 1, width)) : this.other();
  }

  text(head, length) {
    const begin = this.at + head;
    this.at = begin + length;
    return this.bytes.toString('utf8', begin, this.at);
  }

  list(head, length) {
    this.at += head;
    const list = new Array(length);
    for (let i = 0; i < length; i++) list[i] = this.value();
    return list;
  }

  map(head, length) {
    this.at += head;
    const map = {};
    for (let i = 0; i < length; i++) {
      const name = this.name();
      map[name] = this.value();
    }
    return map;
  }

  /** Names are few, and come again and again: of each length and first byte one is remembered. */
  name() {
    const head = this.bytes[this.at];
    if ((head & 0xe0) !== 0xa0) return this.newName();
    const known = NAMES[(this.bytes[this.at + 1] << 5) | (head & 0x1f)];
    if (known === undefined) return this.newName();
    for (let i = 0; i < known.bytes.length; i++) if (known.bytes[i] !== this.bytes[this.at + i]) return this.newName();
    this.at += known.bytes.length;
    return known.name;
  }

  newName() {
    const begin = this.at;
    const name = this.value();
    if (typeof name !== 'string' || name === '__proto__') throw new TypeError('a name in a map must be another text');
    const bytes = new Uint8Array(this.bytes.subarray(begin, this.at));
    if (bytes.length <= 32) NAMES[(bytes[1] << 5) | (bytes[0] & 0x1f)] = { bytes, name };
    return name;
  }

  uint(size) {
    const begin = this.at + 1;
    this.at = begin + size;
    if (size < 8) return this.bytes.readUIntBE(begin, size);
    return this.bytes.readUInt32BE(begin) * 2 ** 32 + this.bytes.readUInt32BE(begin + 4);
  }

  bin(head, length) {
    const begin = this.at + head;
    this.at = begin + length;
    return new Uint8Array(this.bytes.subarray(begin, this.at));
  }

  constant(value) {
    this.at++;
    return value;
  }

  /** What answers hardly ever have: negative numbers, fractions, extensions. */
  other() {
    const { kind, width, plus, size } = HEADS[this.bytes[this.at]];
    const begin = this.at;
    this.at += size + (kind === SIZED ? this.bytes.readUIntBE(begin + 1, width) + plus : 0);
    return decoder.decode(new Uint8Array(this.bytes.subarray(begin, this.at)));
  }
}

const NAMES = new Array(256 << 5);

const READS = {
  0xc0: (reader) => reader.constant(null),
  0xc2: (reader) => reader.constant(false),
  0xc3: (reader) => reader.constant(true),
};
for (const [bytes, method] of [[[0xc4, 0xc5, 0xc6], 'bin'], [[0xd9, 0xda, 0xdb], 'text'], [[0xdc, 0xdd], 'list'], [[0xde, 0xdf], 'map']])
  for (const byte of bytes) READS[byte] = (reader, head, length) => reader[method](head, length);
for (const [size, byte] of Object.entries(UINT)) READS[byte] = (reader) => reader.uint(Number(size));

/** The bytes that a connection brings, as messages. Each byte is looked at once, however it arrives. */
export class Inbox {
  #kept = Buffer.allocUnsafe(0); // room for half a frame
  #end = 0; // of what is kept there
  #bytes; // what is looked at: a chunk itself, or, behind half a frame, what is kept
  #at = 0; // of what was scanned: where the next value of this frame begins
  #wanted = 1; // values that this frame still needs

  /** Takes bytes; returns the messages that are whole with them. Throws for what is no MessagePack. */
  feed(chunk) {
    this.#bytes = this.#end === 0 ? chunk : this.#keep(chunk);
    const messages = [];
    let begin = 0;
    while (this.#scan()) {
      messages.push(new Reader(this.#bytes, begin).value());
      begin = this.#at;
      this.#wanted = 1;
    }
    const rest = this.#bytes.subarray(begin);
    this.#at -= begin;
    if (begin > 0 || this.#end === 0) {
      this.#end = 0;
      if (rest.length > 0) this.#keep(rest);
    }
    if (this.#end === 0 && this.#kept.length > ROOM_TO_STAY) this.#kept = Buffer.allocUnsafe(0);
    return messages;
  }

  /** Appends to what is kept; returns all of it. */
  #keep(bytes) {
    if (this.#end + bytes.length > this.#kept.length) {
      const larger = Buffer.allocUnsafe(Math.max(2 * this.#kept.length, this.#end + bytes.length));
      this.#kept.copy(larger, 0, 0, this.#end);
      this.#kept = larger;
    }
    this.#kept.set(bytes, this.#end); // which may overlap
    this.#end += bytes.length;
    return this.#kept.subarray(0, this.#end);
  }

  /** Goes on to the end of the frame. Returns whether it is there. */
  #scan() {
    while (this.#wanted > 0) {
      if (this.#at >= this.#bytes.length) return false;
      const byte = this.#bytes[this.#at];
      let size;
      let nested = 0;
      if (byte >= 0x80 && byte <= 0x8f) [size, nested] = [1, 2 * (byte & 0x0f)];
      else if (byte >= 0x90 && byte <= 0x9f) [size, nested] = [1, byte & 0x0f];
      else if (byte >= 0xa0 && byte <= 0xbf) size = 1 + (byte & 0x1f);
      else {
        const { kind, width, plus, size: headSize } = HEADS[byte];
        size = headSize;
        if (kind !== FIXED) {
          if (this.#at + headSize > this.#bytes.length) return false;
          const count = this.#bytes.readUIntBE(this.#at + 1, width);
          if (kind === SIZED) size += count + plus;
          else nested = count * plus;
        }
      }
      if (this.#at + size > this.#bytes.length) return false;
      this.#at += size;
      this.#wanted += nested - 1;
    }
    return true;
  }
}
