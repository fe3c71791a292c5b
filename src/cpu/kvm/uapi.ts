// uapi linux/kvm.h and asm/kvm.h as a program for x86 sees them, 6.1 edition. A program for arm64 sees uapi/arm64.ts.

export * from './uapi/common.js'
export * from './uapi/x86.js'
