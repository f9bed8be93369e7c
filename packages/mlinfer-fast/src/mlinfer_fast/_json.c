/* Takes lists of numbers out of a JSON text.

   A number is read here when it can be done exactly and fast; the others go to Python's own reader, which is always right.
   Whatever is not plainly a list of numbers is left to a parser that knows all of JSON. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_DIGITS 19       /* so many fit into 64 bits */
#define LARGEST_EXACT (1ull << 53)
#define LONGEST_NUMBER 512   /* characters */

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define LARGEST_POWER 22
static const uint64_t whole_powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
static const double signs[] = {1.0, -1.0};

#if LDBL_MANT_DIG == 64
static const long double long_powers[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,  1e7L,  1e8L,  1e9L,
                                          1e10L, 1e11L, 1e12L, 1e13L, 1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L,
                                          1e20L, 1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};
#define LARGEST_LONG_POWER 27

/* All powers above and every 64-bit integer are exact in 64 bits of mantissa, so the quotient is rounded once. Rounding it
   again to 53 bits gives another result than rounding once only where it lies exactly between two doubles: then 0. */
static int rounded(uint64_t digits, int exponent, double *value) {
    long double exact = (long double)digits;
    exact = exponent < 0 ? exact / long_powers[-exponent] : exact * long_powers[exponent];
    uint64_t mantissa;
    memcpy(&mantissa, &exact, sizeof mantissa);
    if ((mantissa & 0x7ff) == 0x400) return 0;
    *value = (double)exact;
    return 1;
}
#else
#define LARGEST_LONG_POWER -1
static int rounded(uint64_t digits, int exponent, double *value) {
    (void)digits, (void)exponent, (void)value;
    return 0;
}
#endif

static inline int is_digit(char c) { return (unsigned char)(c - '0') < 10; }
static inline int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
/* Reads digits eight at a time: how many there are differs from number to number, and a loop over them would have the
   processor guess where each one ends. `count` may come out larger than MOST_DIGITS, and `digits` is then of no use. */
static const char *eights(const char *at, const char *end, uint64_t *digits, int *count) {
    while (end - at >= 8 && *count <= MOST_DIGITS) {
        uint64_t eight;
        memcpy(&eight, at, sizeof eight);
        eight ^= 0x3030303030303030ull; /* digits become 0 to 9, and all else more than that */
        const uint64_t others = (eight | (eight + 0x7676767676767676ull)) & 0x8080808080808080ull;
        const int found = others ? __builtin_ctzll(others) >> 3 : 8;
        if (!found) break;
        eight <<= 64 - 8 * found; /* as if zeros stood before them */
        eight = eight * 10 + (eight >> 8);
        eight = ((eight & 0x000000ff000000ffull) * 0x000f424000000064ull +
                 ((eight >> 16) & 0x000000ff000000ffull) * 0x0000271000000001ull) >> 32;
        *digits = *digits * whole_powers[found] + eight;
        *count += found;
        at += found;
        if (found < 8) break;
    }
    return at;
}
#else
static const char *eights(const char *at, const char *end, uint64_t *digits, int *count) {
    (void)end, (void)digits, (void)count;
    return at;
}
#endif

/* The number at `at`; NULL: there is none, or one that is better left to others. The text ends with a zero byte at `end`. */
static const char *number(const char *at, const char *end, double *value) {
    const char *begin = at;
    uint64_t digits = 0;
    int count = 0, exponent = 0;
    const int negative = *at == '-';
    const double sign = signs[negative]; /* to multiply by it is exact; a branch would be guessed wrong half of the time */
    at += negative;
    if (!is_digit(*at) || (*at == '0' && is_digit(at[1]))) return NULL;
    for (; is_digit(*at); at++) {
        digits = digits * 10 + (uint64_t)(*at - '0');
        count += count || digits; /* 2**64 leaves no digits, and is none of the numbers that begin with zeros */
        if (count > MOST_DIGITS) return NULL; /* a whole number that has no double of its own */
    }
    if (*at != '.' && (*at | 32) != 'e') {
        if (digits >= LARGEST_EXACT) return NULL;
        *value = sign * (double)digits;
        return at;
    }
    if (*at == '.') {
        const char *point = ++at;
        const uint64_t whole = digits;
        const int before = count;
        at = eights(at, end, &digits, &count);
        if (count > MOST_DIGITS) { /* perhaps because of zeros before the first digit, which are none of them */
            at = point;
            digits = whole;
            count = before;
        }
        for (; is_digit(*at); at++) {
            if (count > MOST_DIGITS) continue;
            digits = digits * 10 + (uint64_t)(*at - '0');
            count += count || digits;
        }
        if (at == point) return NULL;
        exponent = (int)(at - point > LONGEST_NUMBER ? LONGEST_NUMBER : at - point);
        exponent = -exponent;
    }
    if ((*at | 32) == 'e') {
        at++;
        const int minus = *at == '-';
        at += minus || *at == '+';
        if (!is_digit(*at)) return NULL;
        int power = 0;
        for (; is_digit(*at); at++) power = power > LONGEST_NUMBER ? power : power * 10 + (*at - '0');
        exponent += minus ? -power : power;
    }
    if (at - begin > LONGEST_NUMBER) return NULL;
    if (count <= MOST_DIGITS) {
        double found;
        int known = 1;
        if (digits < LARGEST_EXACT && exponent >= -LARGEST_POWER && exponent <= LARGEST_POWER)
            found = exponent < 0 ? (double)digits / powers[-exponent] : (double)digits * powers[exponent];
        else if (exponent >= -LARGEST_LONG_POWER && exponent <= LARGEST_LONG_POWER)
            known = rounded(digits, exponent, &found);
        else
            known = 0;
        if (known) {
            *value = sign * found;
            return at;
        }
    }
    char *stop;
    *value = PyOS_string_to_double(begin, &stop, NULL);
    if (stop != at || *value - *value != 0) { /* infinity: a number that is too large */
        PyErr_Clear();
        return NULL;
    }
    return at;
}

typedef struct {
    char *text; /* what is left */
    double *numbers;
    Py_ssize_t length, count, room, lists, each;
} Lifted;

static int put(Lifted *self, double value) {
    if (self->count == self->room) {
        const Py_ssize_t room = self->room ? 2 * self->room : 64;
        double *numbers = realloc(self->numbers, (size_t)room * sizeof(double));
        if (numbers == NULL) return 0;
        self->numbers = numbers;
        self->room = room;
    }
    self->numbers[self->count++] = value;
    return 1;
}

static const char *behind_space(const char *at) {
    while (is_space(*at)) at++;
    return at;
}

/* A list of numbers whose bracket is before `at`; its closing one, or NULL. */
static const char *list(Lifted *self, const char *at, const char *end) {
    const Py_ssize_t before = self->count;
    at = behind_space(at);
    if (*at != ']') {
        for (;;) {
            double value;
            at = number(at, end, &value);
            if (at == NULL || !put(self, value)) return NULL;
            at = behind_space(at);
            if (*at == ']') break;
            if (*at != ',') return NULL;
            at = behind_space(at + 1);
        }
    }
    const Py_ssize_t each = self->count - before;
    if (self->lists++ == 0) self->each = each;
    else if (self->each != each) self->each = -1;
    return at;
}

/* 0: this text is better left to others. */
static int lift(Lifted *self, const char *text, Py_ssize_t size, const char *name, Py_ssize_t name_size) {
    const char *at = text, *end = text + size, *copied = text;
    while ((at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        const char *key = ++at;
        while (at < end && *at != '"') at += *at == '\\' ? 2 : 1;
        if (at >= end) return 0;
        const int meant = at - key == name_size && memcmp(key, name, (size_t)name_size) == 0;
        at++;
        if (!meant) continue;
        const char *next = behind_space(at);
        if (*next != ':') continue;
        next = behind_space(next + 1);
        if (*next != '[') continue;
        at = list(self, next + 1, end);
        if (at == NULL) return 0;
        memcpy(self->text + self->length, copied, (size_t)(next + 1 - copied));
        self->length += next + 1 - copied;
        copied = at;
    }
    memcpy(self->text + self->length, copied, (size_t)(end - copied));
    self->length += end - copied;
    return 1;
}

static PyObject *json_lift(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *text, *name, *found = NULL;
    if (!PyArg_ParseTuple(args, "SS", &text, &name)) return NULL;
    Lifted lifted = {0};
    const Py_ssize_t size = PyBytes_Size(text);
    lifted.text = malloc((size_t)size + 1);
    if (lifted.text == NULL) return PyErr_NoMemory();
    if (lift(&lifted, PyBytes_AsString(text), size, PyBytes_AsString(name), PyBytes_Size(name))) {
        found = Py_BuildValue("y#y#nn", lifted.text, lifted.length, lifted.numbers ? (char *)lifted.numbers : "",
                              lifted.count * (Py_ssize_t)sizeof(double), lifted.lists, lifted.each);
    } else {
        found = Py_NewRef(Py_None);
    }
    free(lifted.text);
    free(lifted.numbers);
    return found;
}

static PyMethodDef methods[] = {{"lift", json_lift, METH_VARARGS, "Take lists of numbers out of a JSON text."}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_json", NULL, 0, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__json(void) { return PyModuleDef_Init(&module); }
