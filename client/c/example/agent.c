/*
 * A small agent in one file: it answers a question, may use a tool on the way, and remembers the conversation.
 *
 *     agent [--store NAME] SESSION "question"
 *
 * It speaks to any endpoint with OpenAI's Responses API: $OPENAI_BASE_URL, $OPENAI_API_KEY, $OPENAI_MODEL.
 *
 *     cc agent.c -o agent $(pkg-config --cflags --libs sessiond libcurl jansson)
 *
 * Two lines matter, both in main: the history comes in before the run, the new items go out after it. In between, items
 * are texts: the history goes into a request as it is stored, and what the model answers is stored as it came. jansson
 * only looks into items (it would rewrite their numbers).
 */
#include <sessiond.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>
#include <jansson.h>

enum { TURNS_MAX = 10, ITEMS_MAX = 1000 };

static const char TOOLS[] = "[{\"type\": \"function\", \"name\": \"get_time\", \"strict\": true,"
                            "  \"description\": \"The present date and time in UTC.\","
                            "  \"parameters\": {\"type\": \"object\", \"properties\": {}, \"required\": [],"
                            "                   \"additionalProperties\": false}}]";

static void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* ---- texts that grow ---- */

struct text {
    char *data;
    size_t size;
};

static void append(struct text *text, const char *data, size_t size)
{
    text->data = realloc(text->data, text->size + size + 1);
    if (!text->data)
        die("no memory");
    memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = '\0';
}

static void append_string(struct text *text, const char *string)
{
    append(text, string, strlen(string));
}

/* Appends a string as JSON. */
static void append_quoted(struct text *text, const char *string)
{
    json_t *json = json_string(string);
    char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;

    if (!quoted)
        die("this is no UTF-8: %s", string);
    append_string(text, quoted);
    free(quoted);
    json_decref(json);
}

/* ---- the items of this run ---- */

static struct sessiond_text new_items[ITEMS_MAX];
static size_t n_new_items;

/* Takes the text. */
static void keep_item(struct text item)
{
    if (n_new_items == ITEMS_MAX)
        die("the run has made more than %d items", ITEMS_MAX);
    new_items[n_new_items++] = (struct sessiond_text){item.data, item.size};
}

/* ---- asking the model ---- */

static size_t on_data(char *data, size_t size, size_t n, void *answer)
{
    append(answer, data, size * n);
    return size * n;
}

static void append_items(struct text *body, const struct sessiond_text *items, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        append_string(body, body->data[body->size - 1] == '[' ? "" : ", ");
        append(body, items[i].data, items[i].size);
    }
}

static struct text request_body(const struct sessiond_items *history)
{
    const char *model = getenv("OPENAI_MODEL");
    struct text body = {0};

    append_string(&body, "{\"model\": ");
    append_quoted(&body, model ? model : "gpt-5-mini");
    append_string(&body, ", \"tools\": ");
    append_string(&body, TOOLS);
    append_string(&body, ", \"input\": [");
    append_items(&body, history->items, history->n_items);
    append_items(&body, new_items, n_new_items);
    append_string(&body, "]}");
    return body;
}

/* Return: the answer's text, to be freed. */
static struct text post(struct text body)
{
    const char *base = getenv("OPENAI_BASE_URL"), *key = getenv("OPENAI_API_KEY");
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct text url = {0}, authorization = {0}, answer = {0};
    CURL *curl = curl_easy_init();
    CURLcode code;
    long status = 0;

    append_string(&url, base ? base : "https://api.openai.com/v1");
    append_string(&url, "/responses");
    append_string(&authorization, "Authorization: Bearer ");
    append_string(&authorization, key ? key : "");
    append_string(&answer, "");
    curl_easy_setopt(curl, CURLOPT_URL, url.data);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, curl_slist_append(headers, authorization.data));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (code)
        die("%s: %s", url.data, curl_easy_strerror(code));
    if (status != 200)
        die("%s: status %ld: %s", url.data, status, answer.data);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    free(url.data);
    free(authorization.data);
    return answer;
}

/* ---- reading what it answers ---- */

/* Takes the spaces between its tokens out of a JSON text: an item is one line. Strings and numbers stay as they are. */
static void compact(struct text *json)
{
    bool quoted = false, escaped = false;
    size_t size = 0;

    for (size_t i = 0; i < json->size; i++) {
        char c = json->data[i];

        if (quoted || !strchr(" \t\r\n", c))
            json->data[size++] = c;
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    json->size = size;
    json->data[size] = '\0';
}

/* Reads the JSON value that *at begins with, and moves *at behind it. */
static json_t *next_value(const char **at)
{
    json_error_t error;
    json_t *value = json_loads(*at, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &error);

    if (!value)
        die("the answer is no JSON: %s", error.text);
    *at += error.position;
    return value;
}

/* Return: where the array "output" of a compact answer begins. */
static const char *find_output(const char *answer)
{
    const char *at = answer;

    while (*at == '{' || *at == ',') {
        json_t *name, *value;
        bool found;

        at++;
        name = next_value(&at);
        found = strcmp(json_string_value(name) ? json_string_value(name) : "", "output") == 0 && *at == ':';
        json_decref(name);
        at++;
        if (found)
            return at;
        value = next_value(&at);
        json_decref(value);
    }
    die("the answer has no output: %s", answer);
    return NULL;
}

/* ---- the tool ---- */

static void call_tool(const json_t *call)
{
    const char *id = json_string_value(json_object_get(call, "call_id"));
    const char *name = json_string_value(json_object_get(call, "name"));
    struct text item = {0};
    char output[64] = "there is no such tool";
    time_t now = time(NULL);

    if (!id || !name)
        die("a call without a name");
    if (strcmp(name, "get_time") == 0)
        strftime(output, sizeof(output), "%Y-%m-%d %H:%M:%S UTC", gmtime(&now));
    append_string(&item, "{\"type\":\"function_call_output\",\"call_id\":");
    append_quoted(&item, id);
    append_string(&item, ",\"output\":");
    append_quoted(&item, output);
    append_string(&item, "}");
    keep_item(item);
}

/* ---- the run ---- */

static void print_message(const json_t *message)
{
    size_t i;
    json_t *part;

    json_array_foreach (json_object_get(message, "content"), i, part) {
        const char *text = json_string_value(json_object_get(part, "text"));

        if (text)
            puts(text);
    }
}

/* Keeps all that the model has put out, then makes the calls that it wants. Return: whether it wanted any. */
static bool take_output(const char *at)
{
    json_t *calls = json_array();
    size_t i;
    json_t *call;
    bool called;

    while ((*at == '[' || *at == ',') && at[1] != ']') {
        const char *begin = ++at;
        json_t *item = next_value(&at);
        const char *type = json_string_value(json_object_get(item, "type"));
        struct text text = {0};

        append(&text, begin, (size_t)(at - begin));
        keep_item(text);
        if (type && strcmp(type, "message") == 0)
            print_message(item);
        if (type && strcmp(type, "function_call") == 0)
            json_array_append(calls, item);
        json_decref(item);
    }
    json_array_foreach (calls, i, call)
        call_tool(call);
    called = json_array_size(calls) > 0;
    json_decref(calls);
    return called;
}

static void run(const struct sessiond_items *history, const char *question)
{
    struct text item = {0};
    bool goes_on = true;

    append_string(&item, "{\"role\":\"user\",\"content\":");
    append_quoted(&item, question);
    append_string(&item, "}");
    keep_item(item);
    for (int turn = 0; goes_on; turn++) {
        struct text body = request_body(history), answer;

        if (turn == TURNS_MAX)
            die("no answer within %d turns", TURNS_MAX);
        answer = post(body);
        compact(&answer);
        goes_on = take_output(find_output(answer.data));
        free(body.data);
        free(answer.data);
    }
}

int main(int argc, char **argv)
{
    struct sessiond_options options = {0};
    struct sessiond_items history;
    struct sessiond *client;

    if (argc == 5 && strcmp(argv[1], "--store") == 0) {
        options.store = argv[2];
        argv += 2;
        argc -= 2;
    }
    if (argc != 3) {
        fprintf(stderr, "usage: agent [--store NAME] SESSION \"question\"\n");
        return 2;
    }
    if (sessiond_new(&client, &options))
        die("no memory");

    if (sessiond_get_items(client, argv[1], NULL, &history)) /* history in, before the run */
        die("%s", sessiond_last_error(client)->message);
    run(&history, argv[2]);
    if (sessiond_add_items(client, argv[1], new_items, n_new_items, NULL, NULL)) /* new items out, after it */
        die("%s", sessiond_last_error(client)->message);

    for (size_t i = 0; i < n_new_items; i++)
        free((char *)new_items[i].data);
    sessiond_items_free(&history);
    sessiond_free(client);
    return 0;
}
