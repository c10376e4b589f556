/* A function of the format http-stream, written from the text of docs/formats.md alone: no kit, one call at a time.
 *
 * It answers 201 with the body of the request and a header, logs a line, and fails for the body "fail".
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char path[sizeof(((struct sockaddr_un *)0)->sun_path)], twin[sizeof(path)];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Listen under another name; the link is the last step. */
static int listen_at(const char *address)
{
    if (strncmp(address, "unix:", 5) != 0 || strlen(address) - 5 + 2 >= sizeof(path))
        die("FN_LISTENER");
    strcpy(path, address + 5);
    strcpy(twin, path);
    strcat(twin, ".c");
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path, twin);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&name, sizeof(name)) < 0 || chmod(twin, 0666) < 0 ||
        listen(listener, 16) < 0 || symlink(strrchr(twin, '/') + 1, path) < 0)
        die(twin);
    return listener;
}

/* Read a body in chunks; returns its length. */
static size_t read_chunks(FILE *in, char **body)
{
    char line[64];
    size_t length = 0;
    while (fgets(line, sizeof(line), in)) {
        size_t size = strtoul(line, NULL, 16);
        if (size == 0) {
            fgets(line, sizeof(line), in);
            break;
        }
        *body = realloc(*body, length + size + 1);
        length += fread(*body + length, 1, size, in);
        fgets(line, sizeof(line), in);
    }
    return length;
}

/* Serve one request; 0 at the end of the connection. */
static int serve(FILE *in, FILE *out)
{
    static char line[65536];
    size_t length = 0;
    int chunked = 0, is_http = 0;
    if (!fgets(line, sizeof(line), in))
        return 0;
    while (fgets(line, sizeof(line), in) && strcmp(line, "\r\n") != 0) {
        if (strncasecmp(line, "Content-Length:", 15) == 0)
            length = strtoul(line + 15, NULL, 10);
        chunked |= strncasecmp(line, "Transfer-Encoding: chunked", 26) == 0;
        is_http |= strncasecmp(line, "Fn-Intent: httprequest", 22) == 0;
    }
    char *body = malloc(length + 1);
    if (chunked)
        length = read_chunks(in, &body);
    else
        length = fread(body, 1, length, in);
    fprintf(stderr, "%zu bytes\n", length);
    if (length == 4 && memcmp(body, "fail", 4) == 0) {
        fprintf(out, "HTTP/1.1 502 failed\r\nContent-Length: 0\r\n\r\n");
    } else {
        const char *mark = is_http ? "Fn-Http-H-" : "";
        fprintf(out, "HTTP/1.1 200 OK\r\nFn-Http-Status: 201\r\nContent-Type: text/x-c\r\n%sX-Made-By: c\r\n", mark);
        fprintf(out, "Content-Length: %zu\r\n\r\n", length);
        fwrite(body, 1, length, out);
    }
    free(body);
    return fflush(out) == 0;
}

int main(void)
{
    const char *address = getenv("FN_LISTENER");
    int listener = listen_at(address ? address : "");
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            die("accept");
        FILE *in = fdopen(connection, "r"), *out = fdopen(dup(connection), "w");
        while (serve(in, out))
            ;
        fclose(in);
        fclose(out);
    }
}
