import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { defineConfig } from "hardhat/config";

const require = createRequire(import.meta.url);

// The compiler is npm's solc: the one build that every machine with a package index can have.
const compiler = { version: "0.8.37", path: require.resolve("solc/soljson.js") };
const contracts = {
  evmVersion: "cancun",
  viaIR: true,
  optimizer: { enabled: true, runs: 100 }, // more runs cost 1.5 kB of JobEscrow and save no gas that was measured
  // No metadata in the bytecode: the same source gives the same bytes wherever it is compiled.
  metadata: { bytecodeHash: "none", appendCBOR: false },
};
// A quarrel is rare and its contracts are long: they are made for size.
const quarrel = { ...contracts, optimizer: { enabled: true, runs: 1 } };
const quarrels = ["src/Claims.sol", "src/Accusations.sol", "src/Court.sol"];
// Tests deploy the artifacts of the contracts (Base.create) and need no optimizer themselves: a tenth of the time.
const tests = { evmVersion: "cancun", optimizer: { enabled: false } };
const files = readdirSync(new URL("./test/", import.meta.url), { recursive: true }).filter((name) => name.endsWith(".sol"));

export default defineConfig({
  solidity: {
    compilers: [{ ...compiler, settings: contracts }],
    overrides: Object.fromEntries([
      ...quarrels.map((name) => [name, { ...compiler, settings: quarrel }]),
      ...files.map((name) => [`test/${name}`, { ...compiler, settings: tests }]),
    ]),
  },
  paths: {
    sources: "./src",
    tests: { solidity: "./test" },
  },
  test: {
    solidity: {
      invariant: { runs: 20, depth: 100, failOnRevert: true },
      fuzz: { runs: 256, seed: "0x7a11" },
      fsPermissions: {
        readFile: ["../tests/vectors/eip712.json", "../tests/vectors/sampling.json", "../tests/vectors/merkle.json"],
      },
    },
  },
});
