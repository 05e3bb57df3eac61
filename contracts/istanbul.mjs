// Creation code for chains whose EVM is older than Berlin's: no PUSH0, no MCOPY, no transient storage (Theta). The same
// sources as hardhat's, one JSON object on standard output: contract -> creation code, bytes of what it leaves.
//   node istanbul.mjs Token Registry …
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const solc = require("solc");

const names = process.argv.slice(2);
const file = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
// OpenZeppelin has MCOPY in places that nothing of ours reaches, and the compiler refuses it for old machines even there.
// What would reach it stops; `unreached` shows that nothing does.
const source = (path) =>
  file(path.startsWith("src/") ? path : `node_modules/${path}`).replace(/\bmcopy\((?:[^()]|\([^()]*\)|\((?:[^()]|\([^()]*\))*\))*\)/g, "invalid()");

function compile(evmVersion, runs) {
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(names.map((name) => [`src/${name}.sol`, { content: source(`src/${name}.sol`) }])),
    settings: {
      evmVersion,
      viaIR: true,
      optimizer: { enabled: true, runs },
      metadata: { bytecodeHash: "none", appendCBOR: false },
      outputSelection: { "*": { "*": ["evm.bytecode.object", "evm.deployedBytecode.object"] } },
    },
  };
  const found = (path) => {
    try {
      return { contents: source(path) };
    } catch (error) {
      return { error: error.message };
    }
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: found }));
  const errors = (output.errors ?? []).filter((each) => each.severity === "error");
  if (errors.length) throw new Error(errors.map((each) => each.formattedMessage).join("\n"));
  return Object.fromEntries(names.map((name) => [name, output.contracts[`src/${name}.sol`][name].evm]));
}

/** For a young machine, as hardhat.config.js says: what was cut out changes no byte of it. */
function unreached() {
  const made = compile("cancun", 100);
  for (const name of names) {
    const artifact = JSON.parse(file(`artifacts/src/${name}.sol/${name}.json`));
    if (artifact.bytecode !== `0x${made[name].bytecode.object}`) throw new Error(`${name} reaches MCOPY, or is not built`);
  }
}

unreached();
const made = compile("istanbul", 1); // longer instructions: made for size, or JobEscrow would be over the limit of all contracts
console.log(
  JSON.stringify(
    Object.fromEntries(
      names.map((name) => [
        name,
        { bytecode: `0x${made[name].bytecode.object}`, deployedBytes: made[name].deployedBytecode.object.length / 2 },
      ]),
    ),
  ),
);
