/*
 * x86-64 for guest tests: the frame that exception handlers see. Handlers are installed by the host
 * (vm_install_exception_handler) before the guest runs. Vectors have no classes here.
 */
#pragma once
#include "../guest.h"

/* Registers at the moment of an exception, on the stack. Handlers may change all but vector and error_code. */
struct ex_regs {
	uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t vector;
	uint64_t error_code; /* 0 where the vector has none */
	uint64_t rip, cs, rflags, rsp, ss;
};

#define VECTOR_COUNT 256

enum { DE_VECTOR = 0, DB_VECTOR = 1, BP_VECTOR = 3, UD_VECTOR = 6, GP_VECTOR = 13, PF_VECTOR = 14 };

typedef void (*handler_fn)(struct ex_regs *);
