import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const src = (path: string) => fileURLToPath(new URL(`./src/${path}`, import.meta.url))

export default defineConfig({
  resolve: {
    // The package by its own name, as the guides' programs import it.
    alias: [
      { find: /^vfio-emu\/(uapi|uapi-arm64|device)$/, replacement: src('$1.ts') },
      { find: /^vfio-emu\/(pci|iommu|vfio|cpu|testing)$/, replacement: src('$1/index.ts') },
      { find: /^vfio-emu$/, replacement: src('index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    maxWorkers: '100%',
    // Models have no state outside machines, so test files may share their modules: a third less time.
    isolate: false,
  },
})
