//! Stand-ins for gateways that misbehave in one way each, for the Node that runs the real ones.

use std::path::PathBuf;

use super::place::Place;

/// Puts a program where only root may change it.
pub fn install(place: &Place, name: &str, source: &str) -> anyhow::Result<PathBuf> {
    let path = place.programs().join(format!("{name}.cjs"));
    place.put(&path, source, 0, 0o644)?;
    Ok(path)
}

/// Does nothing, for ever, and ends when told to. Leaves a file in its state directory.
pub const OBEDIENT: &str = r#"
const { writeFileSync } = require("node:fs");
writeFileSync(`${process.env.OPENCLAW_STATE_DIR}/tenant.txt`, "what the tenant wrote\n");
console.log("it runs");
process.on("SIGTERM", () => process.exit(0));
setInterval(() => {}, 1000);
"#;

/// Ends at once.
pub const EXITS: &str = r#"
console.error("boom: the database is gone");
process.exitCode = 3;
"#;

/// Ignores every polite request, and so does a child of it.
pub const STUBBORN: &str = r#"
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => console.log(`ignored ${signal}`));
if (process.argv[2] !== "child") {
  require("node:child_process").spawn(process.execPath, [__filename, "child"], { stdio: "inherit" });
}
console.log("it runs");
setInterval(() => {}, 1000);
"#;

/// Prints as fast as it can, then says in a file that it was never held up.
pub const FLOOD: &str = r#"
const { writeSync, writeFileSync } = require("node:fs");
const line = Buffer.from("x".repeat(200) + "\n");
const block = Buffer.concat(Array.from({ length: 300 }, () => line));
// Synchronous writes wait when nobody reads.
for (let n = 0; n < 1000; n++) {
  for (let at = 0; at < block.length; ) {
    try { at += writeSync(n % 2 ? 1 : 2, block, at); } catch (error) { if (error.code !== "EAGAIN") throw error; }
  }
}
writeFileSync(`${process.env.OPENCLAW_STATE_DIR}/flooded`, "done");
process.on("SIGTERM", () => process.exit(0));
setInterval(() => {}, 1000);
"#;

/// Refuses its configuration until a file appears; its own repair is counted and does not help.
pub const INVALID: &str = r#"
const { appendFileSync, existsSync } = require("node:fs");
const dir = process.env.OPENCLAW_STATE_DIR;
if (process.argv.includes("doctor")) {
  appendFileSync(`${dir}/doctored`, process.argv.slice(2).join(" ") + "\n");
} else if (existsSync(`${dir}/repaired`)) {
  console.log("it runs");
  process.on("SIGTERM", () => process.exit(0));
  setInterval(() => {}, 1000);
} else {
  console.error("Config invalid\nProblem:\n  - gateway: Unrecognized key: \"bananas\"");
  process.exitCode = 1;
}
"#;

/// Refuses its configuration, and hangs in its own repair.
pub const REPAIR_HANGS: &str = r#"
const { writeFileSync } = require("node:fs");
if (process.argv.includes("doctor")) {
  process.on("SIGTERM", () => {});
  writeFileSync(`${process.env.OPENCLAW_STATE_DIR}/doctored`, "began");
  setInterval(() => {}, 1000);
} else {
  console.error("Config invalid");
  process.exitCode = 1;
}
"#;

/// A fixed program of the shell that leaves a thousand orphans behind; they end after a while.
pub const THOUSAND_ORPHANS: &str =
    "i=0; while [ $i -lt 1000 ]; do ( sleep 3 </dev/null >/dev/null 2>&1 & ); i=$((i+1)); done";

/// Runs what follows the word `orphans` by the shell, and says in a file that it did.
pub const ORPHANS: &str = r#"
const { spawnSync } = require("node:child_process");
const { writeFileSync } = require("node:fs");
spawnSync("/bin/sh", ["-c", process.argv[process.argv.indexOf("orphans") + 1]]);
writeFileSync(`${process.env.OPENCLAW_STATE_DIR}/orphaned`, "done");
process.on("SIGTERM", () => process.exit(0));
setInterval(() => {}, 1000);
"#;

/// Takes a port as soon as it is free, answers HTTP probes and WebSocket upgrades as a gateway would, and records all
/// it is sent, with the frames unmasked. Arguments: port, record.
pub const SQUATTER: &str = r#"
const net = require("node:net");
const { createHash } = require("node:crypto");
const { appendFileSync } = require("node:fs");
const [port, record] = [Number(process.argv[2]), process.argv[3]];
const note = (text) => appendFileSync(record, text);

function frame(text) {
  const body = Buffer.from(text);
  const head = body.length < 126 ? [0x81, body.length] : [0x81, 126, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from(head), body]);
}

function unmask(bytes) {
  while (bytes.length >= 6) {
    let [length, at] = [bytes[1] & 127, 2];
    if (length === 126) { length = bytes.readUInt16BE(2); at = 4; }
    if (length === 127) { length = Number(bytes.readBigUInt64BE(2)); at = 10; }
    const mask = bytes.subarray(at, at + 4);
    const body = Buffer.from(bytes.subarray(at + 4, at + 4 + length));
    for (let i = 0; i < body.length; i++) body[i] ^= mask[i % 4];
    note("\nFRAME " + body.toString("latin1") + "\n");
    bytes = bytes.subarray(at + 4 + length);
  }
}

function answer(socket, head) {
  const key = /^sec-websocket-key: *(\S+)/im.exec(head);
  if (!key) {
    const body = '{"ready":true,"ok":true,"status":"live","failing":[]}';
    socket.end(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    return;
  }
  const accept = createHash("sha1").update(key[1] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64");
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
  const payload = { nonce: "3f0c0c52-8a7e-4b0e-9a55-0d1f3a1f8b11", ts: Date.now() };
  socket.write(frame(JSON.stringify({ type: "event", event: "connect.challenge", payload })));
  socket.on("data", unmask);
}

const server = net.createServer((socket) => {
  let head = "";
  const first = (bytes) => {
    note(bytes.toString("latin1"));
    head += bytes.toString("latin1");
    if (!head.includes("\r\n\r\n")) return;
    socket.off("data", first);
    answer(socket, head);
  };
  socket.on("data", first).on("error", () => {});
});
server.on("listening", () => note("BOUND\n"));
server.on("error", () => setTimeout(() => server.listen(port, "127.0.0.1"), 2));
server.listen(port, "127.0.0.1");
"#;
