// MessagePack-RPC: requests to bytes, bytes to messages. No sockets; an Inbox belongs to one connection.

import { Decoder, Encoder } from '@msgpack/msgpack';

const encoder = new Encoder({ ignoreUndefined: true });
const decoder = new Decoder();

/** The frame [0, msgid, method, [params]]; a parameter that is undefined is left out. */
export function packRequest(msgid, method, params) {
  return encoder.encode([0, msgid, method, params === null ? [] : [params]]);
}

const ROOM_TO_STAY = 4 * 1024 * 1024; // bytes that an idle inbox may hold

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

/**
 * A message of which all bytes are there, as a value of its own: nothing in it is a view. It is made here, and not by the
 * library, since nearly all bytes are those of items, and Buffer reads long texts several times as fast.
 */
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
      const name = this.value();
      map[name] = this.value();
    }
    return map;
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

  /** What answers hardly ever have: numbers of other kinds. */
  other() {
    const { kind, width, plus, size } = HEADS[this.bytes[this.at]];
    const begin = this.at;
    this.at += size + (kind === SIZED ? this.bytes.readUIntBE(begin + 1, width) + plus : 0);
    return decoder.decode(this.bytes.subarray(begin, this.at));
  }
}

const READS = {
  0xc0: (reader) => reader.constant(null),
  0xc2: (reader) => reader.constant(false),
  0xc3: (reader) => reader.constant(true),
};
for (const [bytes, method] of [[[0xc4, 0xc5, 0xc6], 'bin'], [[0xd9, 0xda, 0xdb], 'text'], [[0xdc, 0xdd], 'list'], [[0xde, 0xdf], 'map']])
  for (const byte of bytes) READS[byte] = (reader, head, length) => reader[method](head, length);

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
