/* The first program of a container whose image has a root file system of its own: starter.py says what it does.
   tools/build_starter.py compiles it. It uses no library, since such an image may have none. */

typedef unsigned long word;

#if defined(__x86_64__)
enum { CLOSE = 3, DUP3 = 292, EXECVE = 59, EXIT_GROUP = 231, SETRLIMIT = 160, CLOSE_RANGE = 436 };

static long call(long number, word a, word b, word c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
#elif defined(__aarch64__)
enum { CLOSE = 57, DUP3 = 24, EXECVE = 221, EXIT_GROUP = 94, SETRLIMIT = 164, CLOSE_RANGE = 436 };

static long call(long number, word a, word b, word c) {
    register long x8 __asm__("x8") = number;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return (long)x0;
}

__asm__(".globl _start\n_start: mov x29, #0\n mov x0, sp\n bl run\n");
#endif

enum { RLIMIT_NPROC = 6, ENOENT = 2 };
enum { PIPES = 3, LAST_DESCRIPTOR = 64 };
enum { NOT_FOUND = 127, NOT_EXECUTABLE = 126 };

static int is_numbered(const char *variable) {
    for (const char *prefix = "HEARTH_"; *prefix; prefix++, variable++)
        if (*variable != *prefix) return 0;
    return 1;
}

static void lay_out(char **env) {
    char **kept = env;
    for (char **variable = env; *variable; variable++) {
        if (!is_numbered(*variable)) continue;
        char *text = *variable;
        while (*text && *text != '=') text++;
        if (*text) *kept++ = text + 1;
    }
    *kept = 0;
}

__attribute__((used, noreturn)) void run(word *stack) {
    char **argv = (char **)(stack + 1), **env = argv + stack[0] + 1;
    word limit[2] = {0, 0};
    for (const char *digit = argv[1]; *digit; digit++) limit[0] = limit[0] * 10 + (word)(*digit - '0');
    limit[1] = limit[0];
    if (limit[0]) call(SETRLIMIT, RLIMIT_NPROC, (word)limit, 0);
    lay_out(env);
    for (word fd = 0; fd < PIPES; fd++) call(DUP3, fd + PIPES, fd, 0);
    if (call(CLOSE_RANGE, PIPES, ~0u, 0) < 0) /* Linux before 5.9 */
        for (word fd = PIPES; fd <= LAST_DESCRIPTOR; fd++) call(CLOSE, fd, 0, 0);
    long error = call(EXECVE, (word)argv[2], (word)(argv + 3), (word)env);
    for (;;) call(EXIT_GROUP, error == -ENOENT ? NOT_FOUND : NOT_EXECUTABLE, 0, 0);
}
