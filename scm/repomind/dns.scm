;;; dns.scm --- declares the zones that are answered for.
;;;
;;; (define-zone "repomind.io" '((names . ("api" "www")) (ns . ("ns1" "ns2")) …)). Keys:
;;;
;;;   names    routed by region; "@" is the zone itself
;;;   ns       the servers, at least one. ("ns1" . us-east) has that region's addresses; "ns1"
;;;            alone has those of every region, unless the zone gives it some
;;;   soa      contact (a mailbox); refresh, retry, expire, negative-ttl in seconds
;;;   ttl      seconds that NS, SOA and fixed records may be kept; 3600
;;;   a, aaaa  fixed addresses: ("mail" "192.0.2.25")
;;;   txt      fixed texts: ("@" "v=spf1 -all")
;;;   caa      who may issue certificates: ("@" "issue" "ca.example.net")
;;;   cname    aliases: ("docs" "docs.example.net")
;;;
;;; An owner may leave the zone out; what a record points at is whole if there is a dot in it.

(require-builtin repomind/host)
(provide define-zone zone-part canary-shares)

;; From the host:

;;@doc (define-zone "apex" alist)
;; Declares a zone that is answered for over DNS; the keys stand at the top of this file. Gives nothing.
;; > (define-zone "example.net" '((names . ("api")) (ns . ("ns1")) (soa . ((contact . "ops@example.net")))))

;;@doc
;; What a zone's declaration gives for a key; the empty list where it gives nothing.
;; > (zone-part 'names '((names . ("api" "www"))))
;; = ("api" "www")
(define (zone-part key zone)
  (define entry (assoc key zone))
  (if entry (cdr entry) '()))

;;@doc
;; The `shares` of an answer that gives a region this many per cent of the clients, and the best of the other ranked
;; regions the rest. A client keeps its region while the number grows.
;; > (canary-shares 'eu-west 10 '(us-east eu-west ap-southeast))
;; = ((eu-west . 10) (us-east . 90))
(define (canary-shares region percent ranked)
  (define others (filter (lambda (id) (not (equal? id region))) ranked))
  (cond
    [(not (member region ranked)) '()]
    [(null? others) (list (cons region 100))]
    [else (list (cons region percent) (cons (car others) (- 100 percent)))]))
