// KVM as a program for arm64 sees it: under the headers' names, which are x86's in uapi.ts. VFIO's are the same for both.

export * from './cpu/kvm/uapi/arm64.js'
