import { createRequire } from "node:module";
import { defineConfig } from "hardhat/config";

const require = createRequire(import.meta.url);

// The compiler is npm's solc: the one build that every machine with a package index can have.
export default defineConfig({
  solidity: {
    version: "0.8.37",
    path: require.resolve("solc/soljson.js"),
    settings: {
      evmVersion: "cancun",
      viaIR: true,
      optimizer: { enabled: true, runs: 1000 },
      // No metadata in the bytecode: the same source gives the same bytes wherever it is compiled.
      metadata: { bytecodeHash: "none", appendCBOR: false },
    },
  },
  paths: {
    sources: "./src",
    tests: { solidity: "./test" },
  },
});
