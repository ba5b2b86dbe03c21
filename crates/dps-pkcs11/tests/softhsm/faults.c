/* A PKCS#11 module that hands everything on to another one, as the files in a folder say:
 * - `calls` gets the name of each function that was called, one a line;
 * - a file with the name of a function holds the code that it returns, in hexadecimal, and for how many calls;
 * - `no-token`: no slot has a token;
 * - `token-flags`: flags, in hexadecimal, that each token has besides its own;
 * - `mechanisms`: the only mechanisms that a token has, in hexadecimal.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long number;

/* CK_FUNCTION_LIST of PKCS#11 2.40: a version and the functions in the standard's order. */
struct functions {
    unsigned char version[2];
    void *function[68];
};

static struct functions *real;
static struct functions ours;

static FILE *file(const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("FAULTS_FOLDER"), name);
    return fopen(path, mode);
}

static number fault(const char *name) {
    number code = 0, times = 0;
    FILE *f = file("calls", "a");
    if (f) {
        fprintf(f, "%s\n", name);
        fclose(f);
    }
    f = file(name, "r");
    if (!f) return 0;
    if (fscanf(f, "%lx %lu", &code, &times) != 2 || times == 0) code = 0;
    fclose(f);
    if (code && (f = file(name, "w"))) {
        fprintf(f, "%lx %lu", code, times - 1);
        fclose(f);
    }
    return code;
}

#define HANDED_ON(index, name, parameters, arguments)                           \
    static number name parameters {                                             \
        number code = fault(#name);                                             \
        if (code) return code;                                                  \
        return ((number(*) parameters)real->function[index])arguments;          \
    }

HANDED_ON(0, C_Initialize, (void *a), (a))
HANDED_ON(12, C_OpenSession, (number a, number b, void *c, void *d, void *e), (a, b, c, d, e))
HANDED_ON(15, C_GetSessionInfo, (number a, void *b), (a, b))
HANDED_ON(18, C_Login, (number a, number b, void *c, number d), (a, b, c, d))
HANDED_ON(26, C_FindObjectsInit, (number a, void *b, number c), (a, b, c))
HANDED_ON(42, C_SignInit, (number a, void *b, number c), (a, b, c))
HANDED_ON(43, C_Sign, (number a, void *b, number c, void *d, void *e), (a, b, c, d, e))

static number C_GetSlotList(unsigned char present, number *slots, number *count) {
    number code = fault("C_GetSlotList");
    FILE *f = file("no-token", "r");
    if (code) return code;
    if (f) {
        fclose(f);
        *count = 0;
        return 0;
    }
    return ((number(*)(unsigned char, number *, number *))real->function[4])(present, slots, count);
}

static number C_GetTokenInfo(number slot, unsigned char *info) {
    number code = fault("C_GetTokenInfo"), flags = 0, own;
    FILE *f = file("token-flags", "r");
    if (!code) code = ((number(*)(number, void *))real->function[6])(slot, info);
    if (f) {
        if (!code && fscanf(f, "%lx", &flags) == 1) {
            memcpy(&own, info + 96, sizeof own);
            own |= flags;
            memcpy(info + 96, &own, sizeof own);
        }
        fclose(f);
    }
    return code;
}

static number C_GetMechanismList(number slot, number *list, number *count) {
    number code = fault("C_GetMechanismList"), mechanism;
    FILE *f = file("mechanisms", "r");
    if (!code) code = ((number(*)(number, number *, number *))real->function[7])(slot, list, count);
    if (f) {
        if (!code && list) {
            number room = *count;
            *count = 0;
            while (*count < room && fscanf(f, "%lx", &mechanism) == 1) list[(*count)++] = mechanism;
        }
        fclose(f);
    }
    return code;
}

number C_GetFunctionList(struct functions **list) {
    number (*get)(struct functions **);
    void *module = dlopen(getenv("FAULTS_MODULE"), RTLD_NOW);
    if (!module) return 5;
    *(void **)&get = dlsym(module, "C_GetFunctionList");
    if (!get || get(&real)) return 5;
    ours = *real;
    ours.function[0] = C_Initialize;
    ours.function[4] = C_GetSlotList;
    ours.function[6] = C_GetTokenInfo;
    ours.function[7] = C_GetMechanismList;
    ours.function[12] = C_OpenSession;
    ours.function[15] = C_GetSessionInfo;
    ours.function[18] = C_Login;
    ours.function[26] = C_FindObjectsInit;
    ours.function[42] = C_SignInit;
    ours.function[43] = C_Sign;
    *list = &ours;
    return 0;
}
